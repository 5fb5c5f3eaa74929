// Undo and redo for the catalogue's editor. A change is a pair of patches, one for each direction; small changes that
// follow each other closely, as typing does, are joined into one step.

/**
 * @typedef {Object} Patch
 * @property {string[]} path keys from the record's root to the value
 * @property {unknown} value what to put there; undefined takes the key out
 */

/** @typedef {{ forwards: Patch, backwards: Patch, label: string, at: number }} Step */

const JOIN_WITHIN_MS = 800;

/** The value at a path, or undefined where the path leads nowhere. */
export function valueAt(record, path) {
  return path.reduce((inner, key) => (inner === undefined || inner === null ? undefined : inner[key]), record);
}

/** A copy of the record with the patch applied. Parts that the patch does not touch are shared with the original. */
export function patched(record, { path, value }) {
  const [key, ...rest] = path;
  if (key === undefined) return value;
  const copy = Array.isArray(record) ? [...record] : { ...record };
  const inner = rest.length === 0 ? value : patched(copy[key] ?? {}, { path: rest, value });
  if (inner === undefined && !Array.isArray(copy)) delete copy[key];
  else copy[key] = inner;
  return copy;
}

export class History {
  #done = [];
  #undone = [];
  #listeners = new Set();

  constructor(record, { limit = 200, now = () => Date.now() } = {}) {
    this.record = Object.freeze(record);
    this.limit = limit;
    this.now = now;
  }

  /** Change the value at a path. What was undone before can no longer be redone. */
  change(path, value, label = path.join(" / ")) {
    const before = valueAt(this.record, path);
    if (Object.is(before, value)) return;
    const step = { forwards: { path, value }, backwards: { path, value: before }, label, at: this.now() };
    const last = this.#done.at(-1);
    if (last && this.#undone.length === 0 && joins(last, step)) {
      last.forwards = step.forwards;
      last.at = step.at;
    } else {
      this.#done.push(step);
      if (this.#done.length > this.limit) this.#done.shift();
    }
    this.#undone = [];
    this.#become(patched(this.record, step.forwards));
  }

  get canUndo() {
    return this.#done.length > 0;
  }

  get canRedo() {
    return this.#undone.length > 0;
  }

  /** Go back one step; gives its label, or null if there is none. */
  undo() {
    const step = this.#done.pop();
    if (!step) return null;
    this.#undone.push(step);
    this.#become(patched(this.record, step.backwards));
    return step.label;
  }

  redo() {
    const step = this.#undone.pop();
    if (!step) return null;
    this.#done.push(step);
    this.#become(patched(this.record, step.forwards));
    return step.label;
  }

  /** Call the listener with each new state of the record; the result stops that. */
  subscribe(listener) {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  #become(record) {
    this.record = Object.freeze(record);
    for (const listener of this.#listeners) listener(this.record);
  }
}

function joins(last, step) {
  const samePath = last.forwards.path.join("\u0000") === step.forwards.path.join("\u0000");
  const bothText = typeof last.forwards.value === "string" && typeof step.forwards.value === "string";
  const newWord = bothText && step.forwards.value.endsWith(" ") && !last.forwards.value.endsWith(" ");
  return samePath && bothText && !newWord && step.at - last.at < JOIN_WITHIN_MS;
}
