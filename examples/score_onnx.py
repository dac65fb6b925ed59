"""Score an exported ONNX file on CIFAR-10's test images, with NumPy and ONNX Runtime alone.

python examples/score_onnx.py EXPORT/network.onnx DATA/cifar-10-batches-bin/test_batch.bin
"""

import json
import sys

import numpy as np
import onnxruntime

network, batch = sys.argv[1:]
session = onnxruntime.InferenceSession(network)
facts = session.get_modelmeta().custom_metadata_map
mean, std = (np.array(json.loads(facts[key]), np.float32).reshape(1, 3, 1, 1) for key in ("mean", "std"))

records = np.fromfile(batch, np.uint8).reshape(-1, 3073)  # a label, then 3 x 32 x 32 pixels
labels, pixels = records[:, 0], records[:, 1:].reshape(-1, 3, 32, 32)
images = (pixels.astype(np.float32) / 255 - mean) / std

name = session.get_inputs()[0].name
hits = 0
for start in range(0, len(images), 500):
    part = slice(start, start + 500)
    hits += int((session.run(None, {name: images[part]})[0].argmax(1) == labels[part]).sum())
print(f"{100 * hits / len(images):.2f} % of {len(images):,} images")
