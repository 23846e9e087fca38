const SVG = "http://www.w3.org/2000/svg";
function shape(tag, attributes, text) {
  const made = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  if (text !== undefined) made.textContent = text;
  return made;
}
function element(tag, text, name) {
  const made = document.createElement(tag);
  if (text !== undefined) made.textContent = text;
  if (name) made.className = name;
  return made;
}
const percent = share => (100 * share).toFixed(1) + " %";
/// Few figures, with a unit that fits: "1.25 s", "310 ms".
function time_text(ms) {
  if (ms === null || ms === undefined) return "–";
  if (ms >= 3.6e6) return `${Math.floor(ms / 3.6e6)} h ${String(Math.round(ms % 3.6e6 / 6e4)).padStart(2, "0")} min`;
  if (ms >= 6e4) return `${Math.floor(ms / 6e4)} min ${String(Math.round(ms % 6e4 / 1000)).padStart(2, "0")} s`;
  return ms >= 1000 ? few(ms / 1000) + " s" : few(ms) + " ms";
}
function few(value) {
  if (value === 0) return "0";
  const size = Math.abs(value);
  if (size >= 1e10 || size < 1e-3) return value.toExponential(2).replace("e+", "e");
  return size >= 1000 ? Math.round(value).toLocaleString("en").replaceAll(",", " ") : String(Number(value.toPrecision(4)));
}
/// Round numbers of a scale from `low` to `high`, about `count` of them.
function marks(low, high, count) {
  const least = (high - low) / count, power = 10 ** Math.floor(Math.log10(least));
  const step = [1, 2, 5, 10].map(factor => factor * power).find(candidate => candidate >= least * 0.999999);
  const found = [];
  for (let mark = Math.ceil(low / step - 1e-9); mark * step <= high * (1 + 1e-12) + step * 1e-9; ++mark) found.push(Number((mark * step).toPrecision(12)));
  return found;
}

/// The scale of a figure: over all that is drawn, outliers of the first steps left to run out of the picture where they would
/// flatten the rest; the reader is told.
function scale_of(lines, from_zero) {
  const values = lines.flatMap(line => [...line.curve.middle, ...(line.curve.least || []), ...(line.curve.most || [])]).filter(value => value !== null);
  let low = Math.min(...values), high = Math.max(...values);
  const middles = lines.flatMap(line => line.curve.middle).filter(value => value !== null).sort((a, b) => a - b);
  const usual = 1.5 * middles[Math.floor((middles.length - 1) * 0.98)];
  const cut = from_zero && middles.length > 20 && usual > 0 && high > 2 * usual;
  if (cut) high = usual;
  if (from_zero) low = Math.min(0, low);
  if (high - low < 1e-12 * Math.max(1, Math.abs(high))) { high += Math.abs(high) * 0.05 || 1; low -= from_zero ? 0 : Math.abs(low) * 0.05 || 1; }
  if (!from_zero) { const air = (high - low) * 0.05; low -= air; high += air; }
  return {low, high, cut};
}

/// One figure over the steps, a line and a band for each run; `text`: how its values are written. `lines`: {name, colour, dash, curve, dots}; `level`: a dashed
/// line across, with its words.
function curve_chart(place, {title, unit, lines, from_zero, levels, text = few}) {
  const there = lines.filter(line => line.curve);
  if (there.length === 0) return false;
  const box = element("figure", undefined, "chart");
  box.append(element("figcaption", unit ? `${title} (${unit})` : title));
  const holder = element("div", undefined, "plot");
  holder.tabIndex = 0;
  box.append(holder);
  const said = element("p", "", "said");
  box.append(said);
  place.append(box);
  const scale = scale_of(there, from_zero);
  for (const level of levels || []) if (level.value !== null) scale.high = Math.max(scale.high, level.value * 1.05);
  const steps = there.flatMap(line => [line.curve.steps[0], line.curve.steps[line.curve.steps.length - 1]]);
  const first = Math.min(...steps), last = Math.max(...steps, first + 1);
  const bands = there.find(line => line.curve.steps_a_point);
  const usual = [bands ? `band: least to most of every ${bands.curve.steps_a_point} steps; line: their median` : "",
    scale.cut ? "a few values are beyond the picture" : ""].filter(Boolean).join("; ");
  said.textContent = usual;
  function draw(chosen) {
    const width = holder.clientWidth, height = 210, left = 56, right = 12, top = 8, bottom = 26;
    if (width < 80) return;
    const x = step => left + (step - first) / (last - first) * (width - left - right);
    const y = value => height - bottom - (value - scale.low) / (scale.high - scale.low) * (height - top - bottom);
    const held = value => Math.min(Math.max(y(value), top - 2), height - bottom + 2);
    const picture = shape("svg", {width, height, role: "img", "aria-label": `${title}: ${there.map(line => `${line.name} ends at ${text(line.curve.middle[line.curve.middle.length - 1])}`).join(", ")}`});
    for (const mark of marks(scale.low, scale.high, 4)) {
      picture.append(shape("line", {x1: left, x2: width - right, y1: y(mark), y2: y(mark), class: "grid"}));
      picture.append(shape("text", {x: left - 6, y: y(mark) + 4, "text-anchor": "end"}, text(mark).replace(".0 %", " %")));
    }
    for (const mark of marks(first, last, Math.max(2, Math.floor(width / 110))).filter(mark => mark === Math.round(mark)))
      picture.append(shape("text", {x: Math.min(Math.max(x(mark), left + 4), width - right - 8), y: height - 8, "text-anchor": "middle"}, few(mark)));
    for (const line of there) {
      const {steps: at, middle, least, most} = line.curve;
      if (least) {
        const over = at.map((step, index) => `${x(step).toFixed(1)},${held(most[index]).toFixed(1)}`);
        const under = at.map((step, index) => `${x(step).toFixed(1)},${held(least[index]).toFixed(1)}`).reverse();
        picture.append(shape("polygon", {points: [...over, ...under].join(" "), style: `fill: ${line.colour}`, class: "band"}));
      }
      const points = at.map((step, index) => `${x(step).toFixed(1)},${held(middle[index]).toFixed(1)}`).join(" ");
      picture.append(shape("polyline", {points, style: `stroke: ${line.colour}; stroke-dasharray: ${line.dash}`, class: "curve"}));
      if (line.dots && at.length <= 60)
        at.forEach((step, index) => picture.append(shape("circle", {cx: x(step), cy: held(middle[index]), r: 3, style: `fill: ${line.colour}`})));
    }
    for (const level of levels || []) {
      if (level.value === null) continue;
      picture.append(shape("line", {x1: left, x2: width - right, y1: held(level.value), y2: held(level.value), style: `stroke: ${level.colour}`, class: "level"}));
      picture.append(shape("text", {x: width - right - 4, y: held(level.value) - 5, "text-anchor": "end"}, level.text));
    }
    if (chosen !== undefined) picture.append(shape("line", {x1: x(chosen), x2: x(chosen), y1: top, y2: height - bottom, class: "chosen"}));
    holder.replaceChildren(picture);
    holder.x_of = x;
  }
  let chosen;
  function choose(step) {
    chosen = step === undefined ? undefined : Math.min(Math.max(step, first), last);
    draw(chosen);
    if (chosen === undefined) { said.textContent = usual; return; }
    said.textContent = there.map(line => {
      const at = line.curve.steps.reduce((best, step, index) => Math.abs(step - chosen) < Math.abs(line.curve.steps[best] - chosen) ? index : best, 0);
      const {steps, middle, least, most} = line.curve;
      return `${line.name}: step ${steps[at]} ${text(middle[at])}` + (least ? ` (${text(least[at])} to ${text(most[at])})` : "");
    }).join("   ");
  }
  const spread = Math.max(1, Math.round((last - first) / 100));
  holder.addEventListener("pointermove", event => {
    const at = event.clientX - holder.getBoundingClientRect().left;
    choose(Math.round(first + (at - 56) / (holder.clientWidth - 68) * (last - first)));
  });
  holder.addEventListener("pointerleave", () => choose(undefined));
  holder.addEventListener("blur", () => choose(undefined));
  holder.addEventListener("keydown", event => {
    const moves = {ArrowLeft: -spread, ArrowRight: spread};
    if (!(event.key in moves)) return;
    event.preventDefault();
    choose((chosen === undefined ? first : chosen) + moves[event.key]);
  });
  new ResizeObserver(() => draw(chosen)).observe(holder);
  return true;
}

/// Bars to the right, a row each: {label, parts: [{value, colour, title}], mark, text}; all rows on one scale up to `most`.
function bar_rows(place, rows, most) {
  const table = element("div", undefined, "bars");
  for (const row of rows) {
    table.append(element("span", row.label, "label"));
    const bar = element("span", undefined, "bar");
    bar.setAttribute("role", "img");
    bar.setAttribute("aria-label", [row.label, ...row.parts.map(part => part.title), row.text].join(", "));
    for (const part of row.parts) {
      const piece = element("span", undefined, "part");
      piece.style.width = 100 * part.value / most + "%";
      piece.style.background = part.colour;
      piece.title = part.title;
      bar.append(piece);
    }
    if (row.mark !== undefined && row.mark !== null) {
      const mark = element("span", undefined, "mark");
      mark.style.left = 100 * row.mark / most + "%";
      bar.append(mark);
    }
    table.append(bar, element("span", row.text, "figure"));
  }
  place.append(table);
}

function add_table(place, head, rows, caption) {
  const scroll = element("div", undefined, "scroll");
  const table = element("table");
  if (caption) table.append(element("caption", caption));
  const add = (tag, cells) => {
    const row = element("tr");
    row.append(...cells.map(cell => element(tag, cell)));
    table.append(row);
  };
  if (head) add("th", head);
  for (const row of rows) add("td", row);
  scroll.append(table);
  place.append(scroll);
}
