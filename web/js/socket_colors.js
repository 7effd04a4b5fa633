// Gives each type of socket of this pack, and its wires, a color of its own, in the canvas and in the Vue renderer.

import { app } from "../../../scripts/app.js";

const COLORS = {
  VIDSEG_FEATURES: "#7fb8d8",
  VIDSEG_ANCHOR_LABELS: "#e0a84f",
  VIDSEG_LABELS: "#6fc38b",
  VIDSEG_SCENE: "#b58fd0",
  VIDSEG_CROP: "#d98b8b",
};

app.registerExtension({
  name: "VidSeg.SocketColors",
  setup() {
    for (const colors of [app.canvas?.default_connection_color_byType, app.canvas?.constructor?.link_type_colors]) {
      if (colors) Object.assign(colors, COLORS);
    }
    for (const [type, color] of Object.entries(COLORS)) {
      document.documentElement.style.setProperty(`--color-datatype-${type}`, color);
    }
  },
});
