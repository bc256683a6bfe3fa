# For CPUs:        docker build -t yolo-mish .
# For NVIDIA GPUs: docker build -t yolo-mish --build-arg TORCH=cu128 .   (run with --gpus all)
# docker run --rm -v "$PWD:/work" --shm-size 2g yolo-mish train --cfg yolo-mish.yaml
FROM python:3.12-slim
ARG TORCH=cpu
# The compiler builds the CPU kernels on first use; CUDA kernels are built by the NVRTC of PyTorch's wheels.
# hadolint ignore=DL3008
RUN apt-get update && apt-get install -y --no-install-recommends g++ && rm -rf /var/lib/apt/lists/*
COPY . /source
RUN pip install --no-cache-dir "uv>=0.9" && uv pip install --system --no-cache --torch-backend="$TORCH" /source
WORKDIR /work
ENTRYPOINT ["yolo-mish"]
CMD ["--help"]
