// What all drawings share: sharp canvases, colours of the page, numbers.

/** As in the reports: four colours that are far apart for the common kinds of colour blindness and in grey. */
export const kinds = [
  {letter: "F", title: "forward", fill: "#56b4e9", ink: "#06283d"},
  {letter: "B", title: "backward", fill: "#e69f00", ink: "#2b1d00"},
  {letter: "I", title: "input backward", fill: "#f0e442", ink: "#2b2700"},
  {letter: "W", title: "weight backward", fill: "#35a583", ink: "#03251b"},
];

/** Of an event in a timeline's flat list. */
export const FIELDS = 6;

export function colour(name) {
  return getComputedStyle(document.documentElement).getPropertyValue("--" + name).trim();
}

/** A pen on a canvas of so many CSS pixels, sharp on every screen. Browsers refuse canvases beyond some size. */
export function pen_of(canvas, width, height) {
  const scale = Math.min(window.devicePixelRatio || 1, 16000 / Math.max(width, height));
  canvas.width = Math.round(width * scale);
  canvas.height = Math.round(height * scale);
  canvas.style.height = height + "px";
  const pen = canvas.getContext("2d");
  pen.scale(scale, scale);
  pen.clearRect(0, 0, width, height);
  return pen;
}

export function number(value) {
  return String(Number(value.toPrecision(6)));
}

/** "1 activation", "3 activations" */
export function counted(count, name) {
  return `${count} ${name}${count === 1 ? "" : "s"}`;
}

export function size_text(bytes) {
  let unit = 0;
  for (; bytes >= 1000 && unit < 5; ++unit) bytes /= 1024;
  return Number(bytes.toPrecision(3)) + " " + ["B", "KiB", "MiB", "GiB", "TiB", "PiB"][unit];
}

/** A round distance between ticks of an axis of that length: 1, 2 or 5 times a power of ten. */
export function tick_of(length, most) {
  const rough = Math.max(length, 1e-12) / most;
  const power = 10 ** Math.floor(Math.log10(rough));
  return power * [1, 2, 5, 10].find(step => step * power >= rough);
}

/** Lighter, for the earlier stages of a rank, so that its stages are told apart. */
export function lightened(hex, share) {
  const channels = [1, 3, 5].map(at => parseInt(hex.slice(at, at + 2), 16));
  return `rgb(${channels.map(channel => Math.round(channel + (255 - channel) * share)).join(" ")})`;
}

/** The stages of each rank, in their order, and for each stage of a rank how much lighter it is drawn. */
export function shades_of(timeline) {
  return timeline.ranks.map(events => {
    const stages = new Set();
    for (let at = 3; at < events.length; at += FIELDS) stages.add(events[at]);
    const sorted = [...stages].sort((a, b) => a - b);
    return new Map(sorted.map((stage, index) => [stage, (sorted.length - 1 - index) / sorted.length * 0.62]));
  });
}

export function element(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (key.startsWith("on")) made.addEventListener(key.slice(2), value);
    else if (value === true) made.setAttribute(key, "");
    else if (value !== false && value !== undefined) made.setAttribute(key, value);
  }
  made.append(...children);
  return made;
}
