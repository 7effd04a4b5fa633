"""The paper's evaluation (5.1, A.3): data sets, methods, scores, tables; run by `vidseg bench`.

Protocol, the same for all methods:

- K-means makes the clusters; each gets the class that most of its cells have in the ground truth of the first frame,
  void (255) without a vote. On Cityscapes, whose first frame has no ground truth, clusters are propagated without names
  and get the class that most of their pixels have in the labeled frame.
- mIoU: intersection over union of each class, mean over classes. A class counts where it occurs in the ground truth;
  one that is absent there has no value, and its predicted pixels lower the classes they were taken from. ``mIoU`` sums
  one confusion matrix over the data set, as VSPW's, Cityscapes' and CamVid's own evaluations do, so only it can stand
  beside the supervised rows that the paper quotes. ``mIoU per clip`` is the mean of the mIoU of each clip. The
  published code holds no evaluation; the paper's Table 1 (60.6 on VSPW) and the last row of its Table 2 (46.5, same
  method and backbone) differ by more than any setting explains, while their mVC agree within about a point, as two
  ways to average would; so both are printed.
- mVC8, mVC16: VSPW's script: over runs of 8 or 16 consecutive frames, the share of the pixels whose ground truth is
  constant on which the prediction is constant too, right or wrong; mean over all runs of all clips; void left out.
  The paper can mean nothing else: 92.3 on CamVid at a mIoU of 20.6 cannot be a share of right pixels. The stricter
  reading (constant and right) is ``mVC8 right``, ``mVC16 right``.
- beyond the paper: ``matched mIoU`` (per clip, regions matched with classes one to one by the Hungarian method, names
  ignored; regions are what the first frame's naming made of the clusters, so it exceeds ``mIoU per clip`` only where
  another name would have been better for the clip as a whole), ``boundary F`` (DAVIS),
  ``label switches/s`` (changes of a pixel's label in a second, where its ground truth stays).
- ``--nameless``: no mask names anything before the end. Regions are measured as they are (`..supervoxels`); for the
  other figures each then gets the class of most of its pixels in the whole clip, the best that names could do.
"""
