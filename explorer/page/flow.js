// The microbatches on their way: each device a box with the work that it does at this moment, and between the boxes what was sent
// and not yet used.
import {FIELDS, colour, kinds, pen_of} from "./paint.js";

/** What passes between ranks: from the end of the action that made it to the start of the one that uses it. */
function messages_of(timeline, link) {
  const uses = new Map();
  const stages = new Set();
  timeline.ranks.forEach((events, rank) => {
    for (let at = 0; at < events.length; at += FIELDS) {
      stages.add(events[at + 3]);
      if (events[at + 2] !== 3) uses.set((events[at + 2] === 0 ? "F" : "B") + events[at + 3] + ":" + events[at + 4], {rank, start: events[at]});
    }
  });
  const messages = [];
  timeline.ranks.forEach((events, from) => {
    for (let at = 0; at < events.length; at += FIELDS) {
      const kind = events[at + 2];
      if (kind === 3) continue;
      const next = uses.get((kind === 0 ? "F" : "B") + (events[at + 3] + (kind === 0 ? 1 : -1)) + ":" + events[at + 4]);
      if (!next || next.rank === from) continue;
      const sent = events[at + 1];
      messages.push({from, to: next.rank, kind: kind === 0 ? 0 : 1, microbatch: events[at + 4], sent,
        arrived: Math.min(sent + link.latency_ms + link.transfer_ms, next.start), used: next.start});
    }
  });
  return messages;
}

/** All moments at which something begins or ends, ascending. */
function moments_of(timeline) {
  const moments = new Set([0]);
  for (const events of timeline.ranks)
    for (let at = 0; at < events.length; at += FIELDS) { moments.add(events[at]); moments.add(events[at + 1]); }
  return [...moments].sort((a, b) => a - b);
}

export class Flow {
  constructor(canvas) { this.canvas = canvas; }

  show(timeline, link) {
    this.timeline = timeline;
    this.messages = messages_of(timeline, link);
    this.moments = moments_of(timeline);
    this.last = this.moments[this.moments.length - 1];
    this.resize();
  }

  resize() {
    this.width = Math.max(this.canvas.parentElement.clientWidth - 24, 220);
    // As many in each row: one alone in the last would look like another thing.
    this.rows = Math.ceil(this.timeline.ranks.length / Math.max(4, Math.floor(this.width / 62)));
    this.per_row = Math.ceil(this.timeline.ranks.length / this.rows);
    this.height = this.rows * 108 + 4;
  }

  running(rank, time) {
    const events = this.timeline.ranks[rank];
    let low = 0, high = events.length / FIELDS;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (events[middle * FIELDS + 1] > time) high = middle; else low = middle + 1;
    }
    const at = low * FIELDS;
    return at < events.length && events[at] <= time ? at : -1;
  }

  place(rank) {
    const slot = this.width / this.per_row;
    const box = Math.min(slot - 18, 96);
    return {x: (rank % this.per_row + 0.5) * slot, y: Math.floor(rank / this.per_row) * 108 + 52, box};
  }

  draw(time) {
    const pen = pen_of(this.canvas, this.width, this.height);
    const colours = {row: colour("row"), ink: colour("ink"), faint: colour("faint"), line: colour("line")};
    let working = 0;
    pen.textAlign = "center";
    pen.textBaseline = "middle";
    for (let rank = 0; rank < this.timeline.ranks.length; ++rank) {
      const at = this.running(rank, time);
      if (at >= 0) ++working;
      this.draw_device(pen, rank, at, time, colours);
    }
    const waiting = new Map();
    for (const message of this.messages) {
      if (message.sent > time || message.used <= time) continue;
      this.draw_message(pen, message, time, waiting);
    }
    this.canvas.setAttribute("aria-label",
      `${working} of ${this.timeline.ranks.length} devices work, ${this.timeline.ranks.length - working} are idle`);
    return working;
  }

  draw_device(pen, rank, at, time, colours) {
    const {x, y, box} = this.place(rank);
    const events = this.timeline.ranks[rank];
    pen.fillStyle = colours.row;
    pen.fillRect(x - box / 2, y - 17, box, 34);
    pen.strokeStyle = colours.line;
    pen.lineWidth = 1;
    pen.strokeRect(x - box / 2 + 0.5, y - 16.5, box - 1, 33);
    pen.font = "13px system-ui, sans-serif";
    if (at < 0) {
      pen.fillStyle = colours.faint;
      pen.fillText("idle", x, y);
    } else {
      const kind = kinds[events[at + 2]];
      const done = (time - events[at]) / (events[at + 1] - events[at]);
      pen.fillStyle = kind.fill;
      pen.globalAlpha = 0.45;
      pen.fillRect(x - box / 2 + 1, y - 16, box - 2, 32);
      pen.globalAlpha = 1;
      // Forward fills from the left, where inputs come from; the gradients come from the right.
      const filled = (box - 2) * done;
      pen.fillRect(events[at + 2] === 0 ? x - box / 2 + 1 : x + box / 2 - 1 - filled, y - 16, filled, 32);
      pen.fillStyle = colours.ink;
      const text = `${kind.letter}${events[at + 4]}`;
      pen.font = "600 14px system-ui, sans-serif";
      pen.fillStyle = document.documentElement.dataset.theme === "dark" && done < 0.5 ? colours.ink : kind.ink;
      pen.fillText(text, x, y);
    }
    pen.font = "12px system-ui, sans-serif";
    pen.fillStyle = colours.faint;
    pen.fillText("rank " + rank, x, y + 44);
  }

  // Activations travel above the devices, gradients below; what waits for its device stands in a queue beside it.
  draw_message(pen, message, time, waiting) {
    const from = this.place(message.from), to = this.place(message.to);
    const offset = message.kind === 0 ? -31 : 29;
    const travelled = message.arrived > message.sent ? Math.min((time - message.sent) / (message.arrived - message.sent), 1) : 1;
    let x = from.x + (to.x - from.x) * travelled;
    let y = from.y + (to.y - from.y) * travelled + offset;
    if (travelled >= 1) {
      const key = message.kind + ":" + message.to;
      const before = waiting.get(key) || 0;
      waiting.set(key, before + 1);
      const most = Math.max(1, Math.floor(to.box / 19));
      if (before >= 2 * most) return;
      x = to.x + ((before % most) - (Math.min(most, 4) - 1) / 2) * 19;
      y += (message.kind === 0 ? -1 : 0) * Math.floor(before / most) * 19;
    }
    pen.beginPath();
    pen.arc(x, y, 9, 0, 2 * Math.PI);
    pen.fillStyle = kinds[message.kind].fill;
    pen.fill();
    pen.fillStyle = kinds[message.kind].ink;
    pen.font = "11px system-ui, sans-serif";
    pen.fillText(String(message.microbatch), x, y + 0.5);
  }

  /** The next moment at which something changes, or the last before `time` where `step` is -1. */
  neighbour(time, step) {
    const small = this.last * 1e-9;
    if (step > 0) return this.moments.find(moment => moment > time + small) ?? this.last;
    return this.moments.findLast(moment => moment < time - small) ?? 0;
  }
}
