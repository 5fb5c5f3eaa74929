// Forgiving search in titles: finds what was meant although letters are missing, doubled or exchanged. Titles are indexed
// by their trigrams; candidates that share enough of them are ranked by edit distance to the best part of the title.

const folded = (text) =>
  text
    .normalize("NFKD")
    .replace(/\p{M}/gu, "")
    .toLowerCase()
    .replace(/[^\p{L}\p{N}]+/gu, " ")
    .trim();

function trigrams(text) {
  const padded = `  ${text} `;
  const found = new Set();
  for (let start = 0; start + 3 <= padded.length; start += 1) found.add(padded.slice(start, start + 3));
  return found;
}

/**
 * Edit distance between the needle and the part of the haystack that fits it best. A swap of neighbours counts as one.
 * Beginning and end of that part are free, so the first row is all zeros and the smallest of the last row is the answer.
 */
export function partialDistance(needle, haystack) {
  let beforeLast = [];
  let last = new Array(haystack.length + 1).fill(0);
  for (let row = 1; row <= needle.length; row += 1) {
    const current = [row];
    for (let column = 1; column <= haystack.length; column += 1) {
      const same = needle[row - 1] === haystack[column - 1];
      let best = Math.min(last[column] + 1, current[column - 1] + 1, last[column - 1] + (same ? 0 : 1));
      const swapped =
        row > 1 && column > 1 && needle[row - 1] === haystack[column - 2] && needle[row - 2] === haystack[column - 1];
      if (swapped) best = Math.min(best, beforeLast[column - 2] + 1);
      current.push(best);
    }
    beforeLast = last;
    last = current;
  }
  return Math.min(...last);
}

export class TitleIndex {
  constructor(titles) {
    this.titles = titles.map((title) => ({ title, text: folded(title) }));
    this.postings = new Map();
    this.titles.forEach(({ text }, number) => {
      for (const gram of trigrams(text)) {
        if (!this.postings.has(gram)) this.postings.set(gram, []);
        this.postings.get(gram).push(number);
      }
    });
  }

  /** The best titles for a query, as { title, distance }, the closest first; shorter titles first among equals. */
  search(query, { most = 10, tolerance = 0.34 } = {}) {
    const wanted = folded(query);
    if (wanted === "") return [];
    const limit = Math.floor(wanted.length * tolerance);
    return this.#candidates(wanted)
      .map((number) => ({
        title: this.titles[number].title,
        distance: partialDistance(wanted, this.titles[number].text),
        length: this.titles[number].text.length,
      }))
      .filter(({ distance }) => distance <= limit)
      .sort((a, b) => a.distance - b.distance || a.length - b.length || a.title.localeCompare(b.title, "en"))
      .slice(0, most)
      .map(({ title, distance }) => ({ title, distance }));
  }

  /** Titles that share at least a quarter of the query's trigrams. */
  #candidates(wanted) {
    const grams = trigrams(wanted);
    const shared = new Map();
    for (const gram of grams) {
      for (const number of this.postings.get(gram) ?? []) shared.set(number, (shared.get(number) ?? 0) + 1);
    }
    return [...shared].filter(([, count]) => count * 4 >= grams.size).map(([number]) => number);
  }
}

/** Let a text field show its suggestions in a list; answers that come late are not shown. */
export function attach(field, list, index, { delay = 120 } = {}) {
  let timer = 0;
  field.addEventListener("input", () => {
    clearTimeout(timer);
    timer = setTimeout(() => {
      list.replaceChildren(
        ...index.search(field.value).map(({ title }) => {
          const item = document.createElement("li");
          item.textContent = title;
          item.tabIndex = 0;
          return item;
        }),
      );
      list.hidden = list.childElementCount === 0;
    }, delay);
  });
}
