// Gives the node Pick Regions its picker. Loaded by ComfyUI; works in the canvas and in the Vue renderer of nodes.

import { api } from "../../../scripts/api.js";
import { app } from "../../../scripts/app.js";
import { MIN_HEIGHT, PickerWidget } from "./picker_widget.js";

const [NODE, KEY, TEXT, NUMBER] = ["PickRegions", "vidseg_picker", "picks", "num_regions"];
const SIZE = [440, 720];
const RETRIES = [0, 300, 1500]; // milliseconds after which outputs of an earlier run may be back

function addStyles() {
  const link = document.createElement("link");
  link.rel = "stylesheet";
  link.href = new URL("picker.css", import.meta.url).href;
  document.head.append(link);
}

function addressOf(file) {
  const query = new URLSearchParams({ filename: file, subfolder: KEY, type: "temp" });
  return api.apiURL(`/view?${query}`);
}

/** Return what the last run of a node sent, also after the graph was loaded again (undo, change of tab). */
function lastOutput(node) {
  const outputs = app.nodeOutputs ?? {};
  const inner = node.graph && node.graph !== (app.rootGraph ?? app.graph);
  return outputs[inner ? `${node.graph.id}:${node.id}` : node.id]?.[KEY]?.[0];
}

function addPicker(node) {
  const [text, number] = [TEXT, NUMBER].map((name) => node.widgets.find((widget) => widget.name === name));
  const picker = new PickerWidget(addressOf, (value) => {
    app.canvas.emitBeforeChange(); // so that the change is a step of its own in the undo of the graph
    text.value = value;
    app.canvas.emitAfterChange();
    app.graph.setDirtyCanvas(true, true);
  });
  const options = { serialize: false, hideOnZoom: false, getMinHeight: () => MIN_HEIGHT };
  const widget = node.addDOMWidget("picker", "vidseg_picker", picker.root, options);
  widget.serialize = false;
  text.element?.style.setProperty("--comfy-widget-max-height", "96px");
  const setNumber = () => picker.setNumber(Number(number?.value ?? 0));
  const setText = () => picker.setText(String(text.value ?? ""));
  follow(text, "callback", setText);
  if (number) follow(number, "callback", setNumber);
  follow(node, "onConfigure", () => {
    setNumber();
    setText();
  });
  follow(node, "onRemoved", () => picker.remove());
  let shown = false;
  const show = (content) => {
    shown = true;
    setNumber();
    const slot = node.inputs?.findIndex((input) => input.name === TEXT) ?? -1;
    picker.linked = slot >= 0 && node.isInputConnected(slot);
    picker.load(content);
    picker.setText(picker.linked ? content.text : String(text.value ?? ""));
  };
  follow(node, "onExecuted", (output) => output?.[KEY]?.[0] && show(output[KEY][0]));
  for (const wait of RETRIES) {
    setTimeout(() => {
      const content = shown ? null : lastOutput(node);
      if (content) show(content);
    }, wait);
  }
  const [width, height] = node.size;
  node.setSize([Math.max(width, SIZE[0]), Math.max(height, SIZE[1])]);
}

/** Call ``after`` whenever a method was called. */
function follow(object, method, after) {
  const before = object[method];
  object[method] = function (...values) {
    const result = before?.apply(this, values);
    after(...values);
    return result;
  };
}

addStyles();
app.registerExtension({
  name: "VidSeg.PickRegions",
  nodeCreated(node) {
    if (node.comfyClass === NODE) addPicker(node);
  },
});
