"""Run by the Python of an environment with OpenCV 4.10, which still reads Darknet: cfg, weights and input to outputs.

    python opencv_410.py X.cfg X.weights INPUT.npy OUT.npz LAYER...

Writes the outputs of the layers by their names in OpenCV, `permute_N` the map before and `yolo_N` the boxes of layer N.
"""

import sys

import cv2
import numpy as np

cfg, weights, given, out, *names = sys.argv[1:]
net = cv2.dnn.readNetFromDarknet(cfg, weights)
net.setPreferableBackend(cv2.dnn.DNN_BACKEND_OPENCV)
net.enableFusion(False)
net.setInput(np.load(given))
np.savez(out, **{name: net.forward(name) for name in names})
