"use strict";
const EVENT_FIELDS = 6;  // start, end, kind, stage, microbatch, whether it runs together with the next one
const number = value => String(Number(value.toPrecision(6)));
const size_text = bytes => {
  let unit = 0;
  for (; bytes >= 1000 && unit < 5; ++unit) bytes /= 1024;
  return Number(bytes.toPrecision(3)) + " " + ["B", "KiB", "MiB", "GiB", "TiB", "PiB"][unit];
};

/// Draws timelines into `chart`, a canvas that they can be zoomed and moved in; `tip` is an element for what is pointed at.
/// `data` is what `chart_data` (report/page.h) makes. Returns its rows, the part of the time that is seen, and where a time stands.
function show_timelines(data, chart, tip) {
  const pen = chart.getContext("2d");
  const [LABEL, BOX, GAP, STRIP, HEAD, AXIS] = [data.rank_by_rank ? 138 : 72, 28, 6, 16, 30, 34];

  // Rows from top to bottom: a heading for each timeline, then its ranks, each with a strip of memory where it was counted;
  // or the ranks, each with its row in every timeline.
  const rows = [];
  const most_bytes = data.timelines.flatMap(timeline => timeline.ranks).reduce((most, rank) => Math.max(most, rank.peak_bytes), 1);
  // Of the largest microbatch: numbers that stop at 9 because 10 is wider look like an error.
  const digits = String(data.timelines.flatMap(timeline => timeline.ranks).reduce((most, {events}) => {
    for (let at = 4; at < events.length; at += EVENT_FIELDS) most = Math.max(most, events[at]);
    return most;
  }, 0)).length;
  let height = 0;
  function add_rank(timeline, index, name) {
    const rank = timeline.ranks[index];
    if (!rank) return;
    rows.push({kind: "rank", rank, name, label: name, y: height, size: BOX});
    height += BOX;
    if (rank.memory.length > 0) {
      rows.push({kind: "memory", rank, name, label: data.only_activations ? "kept" : "memory", y: height + 2, size: STRIP});
      height += STRIP + 2;
    }
  }
  if (data.rank_by_rank) {
    const ranks = Math.max(...data.timelines.map(timeline => timeline.ranks.length));
    for (let index = 0; index < ranks; ++index) {
      for (const timeline of data.timelines) {
        add_rank(timeline, index, `rank ${index} ${timeline.name}`);
        height += 2;
      }
      height += 2 * GAP;
    }
  } else {
    for (const timeline of data.timelines) {
      rows.push({kind: "heading", label: timeline.name, y: height, size: HEAD});
      height += HEAD;
      timeline.ranks.forEach((rank, index) => {
        add_rank(timeline, index, "rank " + index);
        height += GAP;
      });
    }
  }
  height += AXIS;

  const full = {from: data.first, to: Math.max(data.last, data.first + 1e-9)};
  const view = {...full};
  const plot_width = () => chart.clientWidth - LABEL - 8;
  const x_of = time => LABEL + (time - view.from) / (view.to - view.from) * plot_width();
  const time_at = x => view.from + (x - LABEL) / plot_width() * (view.to - view.from);
  const colour = name => getComputedStyle(document.documentElement).getPropertyValue("--" + name);
  // The first position of a flat list of records whose `offset`-th field exceeds `value`; the lists ascend in time.
  function first_after(list, fields, offset, value) {
    let low = 0, high = list.length / fields;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (list[middle * fields + offset] > value) high = middle; else low = middle + 1;
    }
    return low;
  }

  function draw_events(row) {
    const events = row.rank.events;
    let drawn_to = -1;
    for (let at = first_after(events, EVENT_FIELDS, 1, view.from) * EVENT_FIELDS; at < events.length && events[at] < view.to; at += EVENT_FIELDS) {
      const left = Math.max(x_of(events[at]), LABEL), right = Math.min(x_of(events[at + 1]), LABEL + plot_width());
      if (right < drawn_to + 0.4) continue;  // thousands of boxes within one pixel are one box
      drawn_to = right;
      const kind = data.kinds[events[at + 2]];
      const width = Math.max(right - left - (right - left > 4 ? 1.2 : 0), 0.4);
      pen.fillStyle = kind.shades[row.rank.stages.length - 1][row.rank.stages.indexOf(events[at + 3])];
      pen.beginPath();
      pen.roundRect(left, row.y, width, row.size, width > 8 ? 3 : 0);
      pen.fill();
      const label = String(events[at + 4]);
      if (width > 7.5 * Math.max(label.length, digits) + 4) {
        pen.fillStyle = kind.ink;
        pen.textAlign = "center";
        pen.fillText(label, left + width / 2, row.y + row.size / 2 + 0.5);
      }
      const joined = events[at + 5] || (at > 0 && events[at - EVENT_FIELDS + 5]);
      if (joined && width > 4) {
        pen.fillStyle = kind.ink;
        // A gap on either side, so that two pairs in a row are two.
        if (events[at + 5]) pen.fillRect(left + 2.5, row.y + row.size - 6, right - left - 2.5, 3);
        else pen.fillRect(left, row.y + row.size - 6, width - 2, 3);
      }
    }
  }

  function draw_memory(row) {
    const memory = row.rank.memory, bottom = row.y + row.size;
    pen.beginPath();
    pen.moveTo(LABEL, bottom);
    let level = bottom;
    for (let at = Math.max(first_after(memory, 2, 0, view.from) - 1, 0) * 2; at < memory.length && memory[at] < view.to; at += 2) {
      const x = Math.max(x_of(memory[at]), LABEL);
      pen.lineTo(x, level);
      level = bottom - memory[at + 1] / most_bytes * row.size;
      pen.lineTo(x, level);
    }
    pen.lineTo(LABEL + plot_width(), level);
    pen.lineTo(LABEL + plot_width(), bottom);
    pen.globalAlpha = 0.55;
    pen.fillStyle = colour("memory");
    pen.fill();
    pen.globalAlpha = 1;
  }

  function draw_axis() {
    const y = height - AXIS + 4, least = (view.to - view.from) * 70 / plot_width();
    const power = 10 ** Math.floor(Math.log10(least));
    const step = [1, 2, 5, 10].map(factor => factor * power).find(candidate => candidate >= least * 0.999999);
    pen.fillStyle = pen.strokeStyle = colour("faint");
    pen.textAlign = "center";
    pen.beginPath();
    pen.moveTo(LABEL, y);
    pen.lineTo(LABEL + plot_width(), y);
    for (let mark = Math.ceil((view.from - data.first) / step); data.first + mark * step <= view.to; ++mark) {
      const x = x_of(data.first + mark * step);
      pen.moveTo(x, y);
      pen.lineTo(x, y + 5);
      pen.fillText(number(mark * step), x, y + 16);
    }
    pen.stroke();
    pen.textAlign = "left";
    pen.fillText(data.unit, 0, y + 16);
  }

  function draw() {
    // Browsers refuse canvases of more than about 32,000 pixels a side.
    const ratio = Math.min(window.devicePixelRatio || 1, 30000 / height);
    chart.style.height = height + "px";
    chart.width = Math.round(chart.clientWidth * ratio);
    chart.height = Math.round(height * ratio);
    pen.setTransform(ratio, 0, 0, ratio, 0, 0);
    pen.textBaseline = "middle";
    for (const row of rows) {
      pen.textAlign = "left";
      pen.font = (row.kind === "heading" ? "600 14px " : "13px ") + "ui-sans-serif, system-ui, \"Liberation Sans\", sans-serif";
      pen.fillStyle = colour(row.kind === "memory" ? "faint" : "ink");
      pen.fillText(row.label, 0, row.y + row.size / 2);
      if (row.kind === "heading") continue;
      pen.fillStyle = colour("row");
      pen.fillRect(LABEL, row.y, plot_width(), row.size);
      if (row.kind === "rank") draw_events(row); else draw_memory(row);
    }
    draw_axis();
  }

  function show(from, to) {
    const least = (full.to - full.from) * 1e-6;
    const length = Math.min(Math.max(to - from, least), full.to - full.from);
    view.from = Math.min(Math.max((from + to - length) / 2, full.from), full.to - length);
    view.to = view.from + length;
    draw();
  }

  /// Zooms so that what is under `x` stays there.
  function zoom(factor, x) {
    const fixed = time_at(x);
    show(fixed - (fixed - view.from) * factor, fixed + (view.to - fixed) * factor);
  }
  function move(share) {
    const by = (view.to - view.from) * share;
    if (view.from + by >= full.from && view.to + by <= full.to) show(view.from + by, view.to + by);
    else if (by < 0) show(full.from, full.from + view.to - view.from);
    else show(full.to - (view.to - view.from), full.to);
  }

  function describe(x, y) {
    const row = rows.find(candidate => y >= candidate.y && y < candidate.y + candidate.size);
    if (!row || row.kind === "heading" || x < LABEL) return null;
    const time = time_at(x), rank = row.rank;
    if (row.kind === "memory") {
      const at = first_after(rank.memory, 2, 0, time) - 1;
      return at < 0 ? null : [row.name, `holds ${size_text(rank.memory[at * 2 + 1])}\nat ${number(time)} ${data.unit}`];
    }
    const at = first_after(rank.events, EVENT_FIELDS, 1, time) * EVENT_FIELDS;
    if (at >= rank.events.length || rank.events[at] > time) return [row.name, `waits at ${number(time)} ${data.unit}`];
    const [start, end, kind, stage, microbatch, joins] = rank.events.slice(at, at + EVENT_FIELDS);
    const joined = joins || (at > 0 && rank.events[at - 1]);
    return [`${stage}${data.kinds[kind].letter}${microbatch}`,
      `${data.kinds[kind].title}, stage ${stage}, microbatch ${microbatch}\n` +
      `${number(start)} to ${number(end)} ${data.unit}, takes ${number(end - start)}` +
      (joined ? "\none half of an overlapped pair" : "")];
  }

  let drag = null;
  chart.addEventListener("pointermove", event => {
    const box = chart.getBoundingClientRect(), x = event.clientX - box.left;
    if (drag !== null) {
      move((drag - x) / plot_width());
      drag = x;
    }
    const text = drag === null ? describe(x, event.clientY - box.top) : null;
    tip.hidden = text === null;
    if (text === null) return;
    tip.replaceChildren(Object.assign(document.createElement("b"), {textContent: text[0]}), "\n" + text[1]);
    tip.style.left = Math.min(event.clientX + 14, window.innerWidth - tip.offsetWidth - 8) + "px";
    tip.style.top = Math.min(event.clientY + 16, window.innerHeight - tip.offsetHeight - 8) + "px";
  });
  chart.addEventListener("pointerdown", event => {
    drag = event.clientX - chart.getBoundingClientRect().left;
    chart.classList.add("dragging");
    try { chart.setPointerCapture(event.pointerId); } catch { /* a pointer that is already up */ }
  });
  for (const name of ["pointerup", "pointercancel"])
    chart.addEventListener(name, () => { drag = null; chart.classList.remove("dragging"); });
  chart.addEventListener("pointerleave", () => { tip.hidden = true; });
  chart.addEventListener("wheel", event => {
    event.preventDefault();
    zoom(Math.exp(Math.min(Math.max(event.deltaY, -300), 300) / 400), event.clientX - chart.getBoundingClientRect().left);
  }, {passive: false});
  chart.addEventListener("dblclick", () => show(full.from, full.to));
  chart.addEventListener("keydown", event => {
    const middle = LABEL + plot_width() / 2;
    const keys = {"+": () => zoom(1 / 1.5, middle), "=": () => zoom(1 / 1.5, middle), "-": () => zoom(1.5, middle),
      "ArrowLeft": () => move(-0.2), "ArrowRight": () => move(0.2), "0": () => show(full.from, full.to)};
    if (!keys[event.key]) return;
    event.preventDefault();
    keys[event.key]();
  });
  window.addEventListener("resize", draw);
  window.matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
  draw();
  return {rows, view, x_of};
}
