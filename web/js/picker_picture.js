// The frame with its regions in color: hover, click, drag, right-click.


const OPACITY = { plain: 0.28, picked: 0.6, hovered: 0.18 };
const DRAG_PIXELS = 4;

export class PickerPicture {
  #drag = null; // {pointer, start, last, points: Map(label -> point), moved}

  /**
   * @param {object} actions toggle(label, point), pickAll(points), menu(label, point, event), hover(label or null)
   */
  constructor(actions) {
    this.actions = actions;
    this.frame = null;
    this.groups = new Map();
    this.hovered = null;
    this.canvas = document.createElement("canvas");
    this.canvas.className = "vidseg-picture";
    this.canvas.setAttribute("role", "img");
    this.#listen();
  }

  show(frame, groups, regions) {
    this.frame = frame;
    this.groups = groups;
    this.regions = regions;
    this.draw();
  }

  hover(label) {
    const leader = this.groups.get(label)?.leader ?? null;
    if (leader === this.hovered) return;
    this.hovered = leader;
    this.draw();
  }

  draw() {
    const { frame, canvas } = this;
    if (!frame) return;
    if (canvas.width !== frame.width || canvas.height !== frame.height) {
      [canvas.width, canvas.height] = [frame.width, frame.height];
    }
    const context = canvas.getContext("2d", { willReadFrequently: true });
    context.drawImage(frame.picture, 0, 0, frame.width, frame.height);
    const image = context.getImageData(0, 0, frame.width, frame.height);
    this.#paint(image.data, frame);
    context.putImageData(image, 0, 0);
  }

  #paint(data, { labels, width }) {
    const leaders = new Int16Array(256).fill(-1);
    const styles = [];
    for (const [label, group] of this.groups) {
      leaders[label] = group.leader;
      styles[label] = this.#style(group);
    }
    for (let pixel = 0; pixel < labels.length; pixel++) {
      const style = styles[labels[pixel]];
      if (!style) continue;
      const leader = leaders[labels[pixel]];
      const right = pixel % width < width - 1 ? leaders[labels[pixel + 1]] : leader;
      const below = pixel + width < labels.length ? leaders[labels[pixel + width]] : leader;
      const edge = right !== leader || below !== leader;
      const bright = edge && [leader, right, below].some((other) => styles[other]?.bright);
      for (let channel = 0; channel < 3; channel++) {
        const at = 4 * pixel + channel;
        const mixed = data[at] + style.opacity * (style.color[channel] - data[at]);
        data[at] = bright ? 255 : edge ? 0.6 * mixed : mixed;
      }
    }
  }

  #style(group) {
    const chosen = group.picked || this.#drag?.points.has(group.leader);
    const base = group.hidden ? 0 : chosen ? OPACITY.picked : OPACITY.plain;
    const opacity = base + (group.leader === this.hovered ? OPACITY.hovered : 0);
    const color = this.regions.get(group.leader).color;
    return { opacity, bright: chosen, color: [1, 3, 5].map((start) => parseInt(color.slice(start, start + 2), 16)) };
  }

  /** Return {label, point} under the pointer, or null outside the picture. */
  #under(event) {
    if (!this.frame) return null;
    const box = this.canvas.getBoundingClientRect();
    const scale = Math.min(box.width / this.frame.width, box.height / this.frame.height); // object-fit: contain
    const size = [this.frame.width * scale, this.frame.height * scale];
    const column = Math.floor((event.clientX - box.left - (box.width - size[0]) / 2) / scale);
    const row = Math.floor((event.clientY - box.top - (box.height - size[1]) / 2) / scale);
    return this.#pixel(column, row);
  }

  #pixel(column, row) {
    const { width, height, number } = this.frame;
    if (column < 0 || row < 0 || column >= width || row >= height) return null;
    const pixel = row * width + column;
    const leaf = this.frame.pixels[pixel];
    const point = { frame: number, x: (column + 0.5) / width, y: (row + 0.5) / height, leaf };
    const label = this.frame.labels[pixel];
    return this.groups.has(label) ? { label, point, column, row } : null;
  }

  #listen() {
    const { canvas } = this;
    canvas.addEventListener("pointerdown", (event) => this.#down(event));
    canvas.addEventListener("pointermove", (event) => this.#move(event));
    canvas.addEventListener("pointerup", (event) => this.#up(event));
    canvas.addEventListener("pointercancel", () => this.#end());
    canvas.addEventListener("pointerleave", () => this.actions.hover(null));
    canvas.addEventListener("contextmenu", (event) => {
      event.preventDefault();
      event.stopPropagation();
      this.#end(); // a long press, or Control and a click on a Mac, is no click as well
      const under = this.#under(event);
      if (under) this.actions.menu(under.label, under.point, event);
    });
  }

  #down(event) {
    event.stopPropagation();
    if (!event.isPrimary) this.#end(); // a second finger: a pinch picks nothing
    const under = this.#under(event);
    if (event.button !== 0 || event.ctrlKey || !event.isPrimary || !under) return;
    this.canvas.setPointerCapture(event.pointerId);
    this.#drag = { start: event, last: under, first: under, points: new Map(), moved: false };
  }

  #move(event) {
    const under = this.#under(event);
    const drag = this.#drag;
    if (drag) {
      event.stopPropagation();
      drag.moved ||= Math.hypot(event.clientX - drag.start.clientX, event.clientY - drag.start.clientY) > DRAG_PIXELS;
      if (drag.moved && under) this.#sweep(drag, under);
    }
    this.actions.hover(under ? under.label : null);
  }

  /** Take in all regions between the last and the new place. */
  #sweep(drag, under) {
    const [from, before] = [drag.last, drag.points.size];
    const steps = Math.max(1, Math.abs(under.column - from.column), Math.abs(under.row - from.row));
    for (let step = 0; step <= steps; step++) {
      const [column, row] = ["column", "row"].map((axis) =>
        Math.round(from[axis] + ((under[axis] - from[axis]) * step) / steps),
      );
      const passed = this.#pixel(column, row);
      const group = passed && this.groups.get(passed.label);
      if (group && !group.hidden && !drag.points.has(group.leader)) drag.points.set(group.leader, passed);
    }
    drag.last = under;
    if (drag.points.size !== before) this.draw();
  }

  #up(event) {
    const drag = this.#drag;
    if (!drag) return;
    event.stopPropagation();
    this.#end();
    if (!drag.moved) this.actions.toggle(drag.first.label, drag.first.point);
    else if (drag.points.size) {
      this.actions.pickAll(new Map([...drag.points.values()].map(({ label, point }) => [label, point])));
    }
  }

  #end() {
    this.#drag = null;
    this.draw();
  }
}
