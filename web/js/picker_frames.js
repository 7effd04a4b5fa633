// Small frames and the label of each of their pixels, fetched when they are needed.

const KEPT = 12; // frames kept in memory

export class PickerFrames {
  #loads = new Map(); // by frame number, oldest first

  /** @param {(file: string) => string} addressOf returns the address of a file of the node */
  constructor(addressOf, { stem, frames, numFrames }) {
    this.addressOf = addressOf;
    this.stem = stem;
    this.numbers = frames;
    this.numFrames = numFrames;
  }

  /** Return {number, picture, width, height, pixels} of a frame that can be shown; pixels are labels or leaves. */
  async load(number) {
    const known = this.#loads.get(number);
    if (known) return known;
    const load = this.#fetch(number);
    this.#loads.set(number, load);
    if (this.#loads.size > KEPT) this.#loads.delete(this.#loads.keys().next().value);
    load.catch(() => this.#loads.delete(number));
    return load;
  }

  async #fetch(number) {
    const [picture, map] = await Promise.all(
      ["jpg", "png"].map((kind) => this.#bitmap(`${this.stem}_${number}.${kind}`)),
    );
    const { width, height } = map;
    const context = new OffscreenCanvas(width, height).getContext("2d", { willReadFrequently: true });
    context.drawImage(map, 0, 0);
    const { data } = context.getImageData(0, 0, width, height);
    const pixels = new Uint8Array(width * height);
    for (let pixel = 0; pixel < pixels.length; pixel++) pixels[pixel] = data[4 * pixel];
    return { number, picture, width, height, pixels };
  }

  async #bitmap(file) {
    const answer = await fetch(this.addressOf(file));
    if (!answer.ok) throw new Error(`${file}: ${answer.status}`);
    return createImageBitmap(await answer.blob(), { colorSpaceConversion: "none", premultiplyAlpha: "none" });
  }
}

/** Return the number of the pixel under a point given as fractions of width and height. */
export function pixelAt(frame, x, y) {
  const column = Math.min(Math.floor(x * frame.width), frame.width - 1);
  const row = Math.min(Math.floor(y * frame.height), frame.height - 1);
  return row * frame.width + column;
}

/** Return the number of pixels of each label in a frame. */
export function pixelCounts(frame) {
  const counts = new Uint32Array(256);
  for (const label of frame.labels) counts[label]++;
  return counts;
}
