"""The segmentation algorithm, free of any host: video in, consistent label maps out (VidSeg, CVPR 2025)."""
