"""The pixels of training samples: one definition, three implementations that agree.

`plain` is torch operations on any device and what the others are tested against, `fused` one Triton kernel for GPUs,
`opencv` the road of loader workers on the CPU. The first two take pictures from a `store`, decoded and kept on the
device; the third takes one decoded picture.

What a sample is, for one row of `crops.VIEW`:

1. The window [left, left + side) x [top, top + side) of the picture; outside the picture every channel is OUTSIDE.
2. Resized to size x size as OpenCV's INTER_LINEAR does: output column u lies at X = (u + 0.5) side / size - 0.5 in the
   window, held inside [0, side - 1], between the columns floor(X) and floor(X) + 1 (at most side - 1). Rows likewise.
3. flip: columns reversed.
4. Colours on the 0 to 255 scale, never clamped: + brightness; x contrast if contrast_first; unless saturation is 1 and
   hue is 0, to HSV, saturation multiplied, hue turned, and back; x contrast if not contrast_first. HSV are the formulas
   of OpenCV's float conversion, V = max, S = (max - min) / (|max| + 2^-23), which also take values below 0 and over
   255. Where V goes through zero they jump, so there the last bit of an implementation decides.
5. Channel order: channel i of B, G, R becomes channel p[i], p being number `order` of itertools.permutations(range(3)).
6. gray: all channels become 0.299 R + 0.587 G + 0.114 B.
7. (value - mean) / std, channels R, G, B.
"""

OUTSIDE = 128
"""Grey level around a picture, the reference's."""
