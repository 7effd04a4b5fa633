// New preview nodes are large enough to see something; those of a saved workflow keep their size.

import { app } from "../../../scripts/app.js";

const SIZES = { PreviewRegions: [480, 420], PreviewFeatures: [360, 320] };

app.registerExtension({
  name: "VidSeg.PreviewSize",
  nodeCreated(node) {
    const smallest = SIZES[node.comfyClass];
    if (!smallest) return;
    const [width, height] = smallest;
    node.setSize([Math.max(node.size[0], width), Math.max(node.size[1], height)]);
  },
});
