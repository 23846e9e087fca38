// The grid that every paper on pipelines draws, and the memory of each rank below it, over one time axis.
import {FIELDS, colour, kinds, lightened, number, pen_of, shades_of, size_text, tick_of} from "./paint.js";

const AXIS = 26;
const LABEL = 58;
const RIGHT = 10;

function sizes(ranks, memory) {
  const box = ranks > 20 ? 14 : ranks > 10 ? 18 : 26;
  return {box, gap: ranks > 20 ? 2 : 4, strip: memory ? (ranks > 10 ? 12 : 22) : 0};
}

function show_tip(text, x, y) {
  const tip = document.getElementById("tip");
  tip.hidden = false;
  tip.textContent = text;
  tip.style.left = Math.max(Math.min(x, window.innerWidth - tip.offsetWidth - 8), 0) + "px";
  tip.style.top = Math.max(Math.min(y, window.innerHeight - tip.offsetHeight - 8), 0) + "px";
}

function hide_tip() {
  document.getElementById("tip").hidden = true;
}

/** Draws a timeline; keeps what pointing at it needs. */
export class Grid {
  constructor(canvas, cursor_moved) {
    this.canvas = canvas;
    this.cursor_moved = cursor_moved;
    this.overlay = null;
    canvas.addEventListener("pointermove", event => this.point(event));
    canvas.addEventListener("pointerleave", hide_tip);
    canvas.addEventListener("blur", hide_tip);
    canvas.addEventListener("click", event => this.cursor_moved(this.time_at(event.offsetX)));
  }

  /** `last`: where the time axis ends. `cap`: of the memory, or 0. `most`: where the axis of the memory ends. */
  show(timeline, last, cap, most) {
    this.timeline = timeline;
    this.last = Math.max(last, 1e-9);
    this.cap = cap;
    this.most = most;
    this.has_memory = most > 0 && timeline.memory.some(samples => samples.length > 0);
    this.shades = shades_of(timeline);
    this.sizes = sizes(timeline.ranks.length, this.has_memory);
    this.digits = most_digits(timeline);
    this.draw();
  }

  row_height() {
    return this.sizes.box + (this.sizes.strip ? this.sizes.strip + 2 : 0) + this.sizes.gap;
  }
  x_of(time) { return LABEL + time / this.last * (this.width - LABEL - RIGHT); }
  time_at(x) { return Math.min(Math.max((x - LABEL) / (this.width - LABEL - RIGHT) * this.last, 0), this.last); }

  draw() {
    this.width = Math.max(this.canvas.parentElement.clientWidth, 240);
    this.height = this.timeline.ranks.length * this.row_height() + AXIS;
    const pen = pen_of(this.canvas, this.width, this.height);
    this.colours = {row: colour("row"), ink: colour("ink"), faint: colour("faint"), line: colour("line"), memory: colour("memory"), cap: colour("cap")};
    this.draw_axis(pen);
    pen.textBaseline = "middle";
    this.timeline.ranks.forEach((events, rank) => {
      const y = rank * this.row_height();
      pen.font = "13px system-ui, sans-serif";
      pen.fillStyle = this.colours.ink;
      pen.textAlign = "left";
      pen.fillText("rank " + rank, 0, y + this.sizes.box / 2);
      pen.fillStyle = this.colours.row;
      pen.fillRect(LABEL, y, this.width - LABEL - RIGHT, this.sizes.box);
      this.draw_events(pen, events, y, this.shades[rank]);
      if (this.has_memory) this.draw_memory(pen, this.timeline.memory[rank] || [], y + this.sizes.box + 2, this.last_end);
    });
  }

  draw_events(pen, events, y, shades) {
    const size = this.sizes.box;
    pen.textAlign = "center";
    pen.font = (size > 20 ? 12 : 10) + "px system-ui, sans-serif";
    for (let at = 0; at < events.length; at += FIELDS) {
      const left = this.x_of(events[at]), right = this.x_of(events[at + 1]);
      const kind = kinds[events[at + 2]];
      const shade = shades.get(events[at + 3]);
      pen.fillStyle = shade > 0 ? lightened(kind.fill, shade) : kind.fill;
      const width = right - left;
      pen.fillRect(left, y, Math.max(width - (width > 5 ? 1 : 0), 0.5), size);
      const text = String(events[at + 4]);
      if (width < 5 + 7 * Math.max(text.length, this.digits)) continue;
      pen.fillStyle = kind.ink;
      pen.fillText(text, (left + right) / 2, y + size / 2 + 0.5);
    }
  }

  draw_memory(pen, samples, y, end) {
    const size = this.sizes.strip;
    const height = bytes => bytes / this.most * size;
    pen.fillStyle = this.colours.row;
    pen.fillRect(LABEL, y + size - 0.5, this.width - LABEL - RIGHT, 0.5);
    pen.fillStyle = this.colours.memory;
    let over = false;
    // One shape: boxes side by side would leave hairlines between them.
    pen.beginPath();
    pen.moveTo(this.x_of(Math.max(samples[0] ?? 0, 0)), y + size);
    for (let at = 0; at < samples.length; at += 2) {
      const right = this.x_of(at + 2 < samples.length ? Math.max(samples[at + 2], 0) : end);
      over ||= this.cap > 0 && samples[at + 1] > this.cap;
      const top = y + size - height(samples[at + 1]);
      pen.lineTo(this.x_of(Math.max(samples[at], 0)), top);
      pen.lineTo(right, top);
    }
    pen.lineTo(this.x_of(end), y + size);
    pen.fill();
    if (this.cap > 0 && this.cap <= this.most) {
      pen.strokeStyle = over ? this.colours.cap : this.colours.faint;
      pen.lineWidth = over ? 2 : 1;
      pen.setLineDash([4, 3]);
      pen.beginPath();
      pen.moveTo(LABEL, y + size - height(this.cap));
      pen.lineTo(this.width - RIGHT, y + size - height(this.cap));
      pen.stroke();
      pen.setLineDash([]);
    }
    if (size < 20) return;
    let peak = 0;
    for (let at = 1; at < samples.length; at += 2) peak = Math.max(peak, samples[at]);
    pen.font = "11px system-ui, sans-serif";
    pen.fillStyle = over ? this.colours.cap : this.colours.faint;
    pen.textAlign = "left";
    pen.fillText(size_text(peak), 0, y + size / 2);
  }

  get last_end() {
    let end = 0;
    for (const events of this.timeline.ranks) if (events.length > 0) end = Math.max(end, events[events.length - FIELDS + 1]);
    return end;
  }

  draw_axis(pen) {
    const top = this.height - AXIS;
    pen.strokeStyle = this.colours.line;
    pen.fillStyle = this.colours.faint;
    pen.font = "12px system-ui, sans-serif";
    pen.textBaseline = "top";
    pen.lineWidth = 1;
    const step = tick_of(this.last, Math.max(2, (this.width - LABEL) / 90));
    for (let tick = 0; tick <= this.last * (1 + 1e-9); tick += step) {
      const x = this.x_of(tick);
      pen.beginPath();
      pen.moveTo(x, 0);
      pen.lineTo(x, top + 5);
      pen.stroke();
      const text = number(tick) + (tick === 0 ? " ms" : "");
      pen.textAlign = tick === 0 ? "left" : x > this.width - 30 ? "right" : "center";
      pen.fillText(text, x, top + 8);
    }
  }

  /** The action at a point, or nothing. */
  event_at(x, y) {
    const rank = Math.floor(y / this.row_height());
    const events = this.timeline.ranks[rank];
    if (!events || y - rank * this.row_height() > this.sizes.box) return null;
    const time = this.time_at(x);
    for (let at = 0; at < events.length; at += FIELDS)
      if (events[at] <= time && time < events[at + 1]) return {rank, at, events};
    return null;
  }

  point(pointer) {
    const found = this.event_at(pointer.offsetX, pointer.offsetY);
    if (found === null) return hide_tip();
    show_tip(describe(found.events, found.at, found.rank), pointer.clientX + 14, pointer.clientY + 14);
  }

  /** What a rank does at a moment, below its row: for those who do not point. */
  tell(rank, time) {
    const events = this.timeline.ranks[rank];
    let at = 0;
    while (at < events.length && events[at + 1] <= time) at += FIELDS;
    const works = at < events.length && events[at] <= time;
    const place = this.canvas.getBoundingClientRect();
    show_tip(works ? describe(events, at, rank) : `rank ${rank}: idle at ${number(time)} ms`, place.left + this.x_of(time) + 6,
      place.top + rank * this.row_height() + this.sizes.box + 4);
  }
}

/** "rank 1: 1F2, forward of microbatch 2 on stage 1, from 2 ms to 3 ms" */
export function describe(events, at, rank) {
  const kind = kinds[events[at + 2]];
  return `${events[at + 3]}${kind.letter}${events[at + 4]}: ${kind.title} of microbatch ${events[at + 4]} on stage ${events[at + 3]}\n` +
    `rank ${rank}, from ${number(events[at])} ms to ${number(events[at + 1])} ms`;
}

/** Of the largest microbatch: numbers that stop at 9 because 10 is wider look like an error. */
function most_digits(timeline) {
  let largest = 0;
  for (const events of timeline.ranks)
    for (let at = 4; at < events.length; at += FIELDS) if (events[at] > largest) largest = events[at];
  return String(largest).length;
}

/** The largest of all memory samples. */
export function most_memory(timeline) {
  let most = 0;
  for (const samples of timeline.memory)
    for (let at = 1; at < samples.length; at += 2) if (samples[at] > most) most = samples[at];
  return most;
}

/** A line over a grid at the moment that is shown. */
export function place_cursor(line, grid, time) {
  line.style.left = grid.x_of(Math.min(time, grid.last)) + "px";
  line.style.height = grid.height - AXIS + "px";
}

/** The cells of a schedule that was refused: no times, as it has none; the cells of the counterexample stand out. */
export function draw_cells(canvas, cells, marked) {
  const columns = Math.max(...cells.map(row => row.length), 1);
  const width_of_cell = 44, height = 26;
  const pen = pen_of(canvas, LABEL + columns * width_of_cell, cells.length * (height + 4));
  canvas.style.width = LABEL + columns * width_of_cell + "px";
  pen.textBaseline = "middle";
  pen.font = "12px system-ui, sans-serif";
  cells.forEach((row, rank) => {
    const y = rank * (height + 4);
    pen.fillStyle = colour("ink");
    pen.textAlign = "left";
    pen.fillText("rank " + rank, 0, y + height / 2);
    for (let at = 0; at < columns; ++at) {
      const x = LABEL + at * width_of_cell;
      const text = row[at] || "";
      const kind = kinds.find(one => new RegExp(`^\\d+${one.letter}\\d`).test(text));
      pen.fillStyle = kind ? kind.fill : colour("row");
      pen.fillRect(x, y, width_of_cell - 2, height);
      pen.fillStyle = kind ? kind.ink : colour("faint");
      pen.textAlign = "center";
      pen.fillText(text.length > 6 ? text.slice(0, 5) + "…" : text, x + width_of_cell / 2 - 1, y + height / 2);
      if (!marked.has(rank + ":" + at)) continue;
      pen.strokeStyle = colour("cap");
      pen.lineWidth = 3;
      pen.strokeRect(x + 1, y + 1, width_of_cell - 4, height - 2);
    }
  });
}
