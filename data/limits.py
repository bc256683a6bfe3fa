"""Limits on what is read from users' files, all in one place; beyond them a file is refused with an error."""

MAX_ANNOTATION_BYTES = 8 << 30
MAX_COORDINATE = 1e7  # pixels, of a box; more than any image that is accepted has
MAX_LISTED_SIZE = 1_000_000  # pixels, of an image's width or height in an annotation file
ID_LIMIT = 2**63  # ids are stored as int64

MAX_IMAGE_BYTES = 1 << 30
MAX_PIXELS = 150_000_000  # checked in the header, before any pixel is decoded
MAX_PIXELS_PER_BYTE = 10_000  # of a compressed image; PNG reaches 8,256 at most, with one bit per pixel
MAX_PIXELS_UNCHECKED = 10_000_000  # below this the pixels per byte are not checked

MAX_NAMES_BYTES = 1 << 20  # *.names
MAX_YAML_BYTES = 1 << 20  # YOLO data YAML and classes.txt
MAX_LABEL_BYTES = 64 << 20  # the labels of one image, YOLO or Pascal VOC
MAX_XML_BYTES = 1 << 30  # an XML file of CVAT, which holds a whole data set

MAX_LIST_BYTES = 64 << 20  # list of images: of a data set, or given as --source
MAX_CAMERA_DIGITS = 4
MAX_PATH_BYTES, MAX_PATH_PART_BYTES = 4095, 255
MAX_STEM_BYTES = 200  # of names derived from a source; file systems allow 255, and a number and a suffix are added
MAX_DOWNLOAD_BYTES = 256 << 20  # an image at an http address
MAX_DOWNLOAD_SECONDS = 120
