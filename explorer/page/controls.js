// The settings: each a slider and a number, so that it can be dragged, typed and reached by keyboard alike.
import {element} from "./paint.js";

const groups = [
  {title: "", open: true, settings: [
    {key: "p", name: "Devices (ranks)", least: 1, most: 32, step: 1},
    {key: "m", name: "Microbatches", least: 1, most: 128, step: 1},
    {key: "v", name: "Stages a device", least: 1, most: 8, step: 1},
  ]},
  {title: "Times of a device's share", open: true, settings: [
    {key: "f", name: "Forward", unit: "ms", least: 0, most: 20, step: 0.1},
    {key: "i", name: "Backward, to the input", unit: "ms", least: 0, most: 20, step: 0.1},
    {key: "w", name: "Backward, to the weights", unit: "ms", least: 0, most: 20, step: 0.1},
    {key: "batch", name: "Samples in the minibatch", least: 0, most: 256, step: 1,
      note: "0: a microbatch takes these times, whatever it holds. Above 0 they are of one sample, and more microbatches are smaller ones."},
    {key: "fix", name: "Fixed cost of a microbatch", unit: "samples", least: 0, most: 16, step: 0.5, only: state => state.batch > 0,
      note: "What a microbatch costs beside its samples: small ones use a device badly."},
  ]},
  {title: "Links", settings: [
    {key: "lat", name: "Latency", unit: "ms", least: 0, most: 10, step: 0.05},
    {key: "bw", name: "Bandwidth", unit: "GB/s", least: 0, most: 400, step: 1, note: "0: unlimited."},
    {key: "bound", name: "Bytes across a cut", unit: "MiB", least: 0, most: 1024, step: 1},
  ]},
  {title: "Memory of a device", settings: [
    {key: "act", name: "Activations of a microbatch", unit: "MiB", least: 0, most: 4096, step: 1},
    {key: "par", name: "Weights", unit: "MiB", least: 0, most: 16384, step: 16,
      note: "As much again for their gradients, and twice as much for the optimizer."},
    {key: "cap", name: "Memory cap", unit: "MiB", least: 0, most: 65536, step: 16, note: "0: none."},
  ]},
];

/** Builds the form. `change` is called with what has changed. */
export function build_controls(form, families, change) {
  form.addEventListener("submit", event => event.preventDefault());
  const schedule = element("select", {id: "schedule", onchange: event => change({schedule: event.target.value})});
  for (const family of families) schedule.append(element("option", {value: family.name}, family.title));
  form.append(element("div", {class: "row"}, element("label", {for: "schedule"}, "Schedule"), schedule));
  form.append(element("div", {id: "chips"}));
  const rows = [];
  for (const group of groups) {
    const box = group.title ? element("details", {open: group.open === true && window.innerWidth > 820}, element("summary", {}, group.title)) : element("div");
    for (const setting of group.settings) rows.push(add_setting(box, setting, change));
    form.append(box);
  }
  form.append(element("button", {type: "button", id: "reset", onclick: () => change(null)}, "Start again"));
  return rows;
}

function add_setting(box, setting, change) {
  const send = event => {
    const value = Number(event.target.value);
    if (!Number.isFinite(value) || event.target.value === "") return;
    const allowed = Math.min(Math.max(value, setting.least), event.target.type === "range" ? setting.most : setting.most * 64);
    change({[setting.key]: setting.step === 1 && setting.key !== "act" ? Math.round(allowed) : allowed});
  };
  const limits = {min: setting.least, max: setting.most, step: setting.step, oninput: send};
  const slider = element("input", {type: "range", id: "slide-" + setting.key, "aria-label": setting.name, ...limits});
  const field = element("input", {type: "number", id: "field-" + setting.key, min: setting.least, step: "any", oninput: send});
  const row = element("div", {class: "row"}, element("label", {for: "field-" + setting.key}, setting.name),
    element("span", {class: "with-unit"}, field, setting.unit || ""), slider);
  box.append(row);
  const note = setting.note ? element("p", {class: "note"}, setting.note) : null;
  if (note) box.append(note);
  return {setting, row, note, slider, field};
}

/** Shows the state in the form. What a field is being typed into is left as it is. */
export function show_controls(rows, state, files, families) {
  const family = families.find(one => one.name === state.schedule);
  const select = document.getElementById("schedule");
  let own = select.querySelector("option[value=file]");
  if (files.csv && !own) select.append(own = element("option", {value: "file"}, "from the file or the search"));
  if (!files.csv && own) own.remove();
  select.value = state.schedule;
  const from_file = {p: files.csv && state.schedule === "file", m: files.csv && state.schedule === "file",
    f: files.cost || files.layers, i: files.cost || files.layers, w: files.cost || files.layers, fix: files.cost || files.layers,
    batch: files.cost, lat: files.cost || files.layers, bw: files.cost || files.layers, bound: files.cost || files.layers,
    act: files.cost || files.layers, par: files.cost || files.layers, cap: files.cost || files.layers};
  for (const {setting, row, note, slider, field} of rows) {
    const fixed_stages = setting.key === "v" && !(family && family.stages_per_rank_varies);
    const hidden = Boolean(from_file[setting.key]) || (setting.only && !setting.only(state)) || fixed_stages;
    row.hidden = hidden;
    if (note) note.hidden = hidden;
    slider.value = String(state[setting.key]);
    if (document.activeElement !== field) field.value = String(state[setting.key]);
  }
}
