// Step time over the number of microbatches: a line a schedule, the best of each ringed.
import {colour, number, pen_of, tick_of} from "./paint.js";

// Told apart by dash and mark as well as by colour (after Okabe and Ito 2008).
const lines = [
  {stroke: "#0072b2", dash: []}, {stroke: "#d55e00", dash: [7, 4]}, {stroke: "#009e73", dash: [2, 3]}, {stroke: "#cc79a7", dash: [9, 3, 2, 3]},
  {stroke: "#e69f00", dash: [4, 4]}, {stroke: "#56b4e9", dash: [12, 4]}, {stroke: "#8a8a8a", dash: [1, 2]}, {stroke: "#a0522d", dash: [6, 2, 1, 2]},
];

export function draw_sweep(canvas, points, state, title_of, choose) {
  const width = Math.max(canvas.parentElement.clientWidth, 260), height = 300;
  const left = 64, right = Math.min(150, width * 0.3), top = 12, bottom = 44;
  const names = [...new Set(points.map(point => point.schedule))];
  const counts = points.map(point => point.microbatches);
  const most = Math.max(...counts), least_step = Math.min(...points.map(point => point.step_ms));
  // What takes more than four times the best would press the rest into a line.
  const ceiling = Math.min(Math.max(...points.map(point => point.step_ms)), least_step * 4);
  const x_of = count => left + (most > 1 ? Math.log2(count) / Math.log2(most) : 0.5) * (width - left - right);
  const y_of = step => top + (1 - Math.min(step, ceiling) / (ceiling * 1.04)) * (height - top - bottom);
  const pen = pen_of(canvas, width, height);
  pen.font = "12px system-ui, sans-serif";
  pen.textBaseline = "middle";
  pen.strokeStyle = colour("line");
  pen.fillStyle = colour("faint");
  const tick = tick_of(ceiling, 5);
  for (let step = 0; step <= ceiling * 1.04; step += tick) {
    pen.beginPath(); pen.moveTo(left, y_of(step)); pen.lineTo(width - right, y_of(step)); pen.stroke();
    pen.textAlign = "right";
    pen.fillText(number(step) + " ms", left - 8, y_of(step));
  }
  pen.textAlign = "center";
  for (const count of [...new Set(counts)]) pen.fillText(String(count), x_of(count), height - bottom + 14);
  pen.fillText("microbatches", (left + width - right) / 2, height - 10);
  if (counts.includes(state.m)) {
    pen.setLineDash([3, 3]);
    pen.beginPath(); pen.moveTo(x_of(state.m), top); pen.lineTo(x_of(state.m), height - bottom); pen.stroke();
    pen.setLineDash([]);
  }
  const labels = [];
  names.forEach((name, index) => {
    const line = lines[index % lines.length];
    const own = points.filter(point => point.schedule === name).sort((a, b) => a.microbatches - b.microbatches);
    const best = own.filter(point => point.fits).reduce((found, point) => !found || point.step_ms < found.step_ms ? point : found, null);
    pen.strokeStyle = line.stroke;
    pen.lineWidth = name === state.schedule ? 3 : 1.6;
    pen.setLineDash(line.dash);
    pen.beginPath();
    own.forEach((point, at) => pen[at === 0 ? "moveTo" : "lineTo"](x_of(point.microbatches), y_of(point.step_ms)));
    pen.stroke();
    pen.setLineDash([]);
    for (const point of own) {
      pen.beginPath();
      pen.arc(x_of(point.microbatches), y_of(point.step_ms), 3.4, 0, 2 * Math.PI);
      pen.fillStyle = point.fits ? line.stroke : colour("page");
      pen.fill();
      pen.lineWidth = 1.4;
      pen.stroke();
      if (point !== best) continue;
      pen.beginPath();
      pen.arc(x_of(point.microbatches), y_of(point.step_ms), 8, 0, 2 * Math.PI);
      pen.lineWidth = 2;
      pen.stroke();
    }
    labels.push({name, line, y: y_of(own[own.length - 1].step_ms)});
  });
  // One below the other where lines end close to each other.
  labels.sort((a, b) => a.y - b.y);
  let free = 0;
  for (const label of labels) {
    label.y = Math.max(label.y, free);
    free = label.y + 15;
  }
  pen.textAlign = "left";
  for (const {name, line, y} of labels) {
    pen.strokeStyle = line.stroke;
    pen.lineWidth = 3;
    pen.setLineDash(line.dash);
    pen.beginPath(); pen.moveTo(width - right + 8, y); pen.lineTo(width - right + 28, y); pen.stroke();
    pen.setLineDash([]);
    pen.fillStyle = colour("ink");
    pen.fillText(title_of(name), width - right + 33, y, right - 36);
  }
  canvas.onclick = event => {
    const nearest = counts.reduce((found, count) => Math.abs(x_of(count) - event.offsetX) < Math.abs(x_of(found) - event.offsetX) ? count : found);
    choose(nearest);
  };
}
