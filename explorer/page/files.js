// Files that are dropped or chosen: what they are, and what is shown of them. And files to take away.
import {ask} from "./engine.js";
import {element} from "./paint.js";

const longest_file = 32 * 1048576;

/** What a text is: csv, cost, layers, plan or trace; nothing for what is none of these. */
export function kind_of(name, text) {
  if (/^\s*\{/.test(text)) {
    let document;
    try {
      document = JSON.parse(text);
    } catch {
      return "cost";  // the reader says what is wrong with it
    }
    if ("traceEvents" in document) return "trace";
    return "layers" in document ? "layers" : "cost";
  }
  if (/\.toml$/i.test(name) || /^\s*\[prediction\]/m.test(text)) return "plan";
  return /\.csv$/i.test(name) || /\d+[FBIW]\d+/.test(text) ? "csv" : "";
}

/** What the page shows after these texts: a change of the state and the files. */
export function taken(state, files, texts) {
  const next = {...files, ...texts};
  const change = {tab: "files", tour: 0};
  if (texts.trace) return {change: {...change, schedule: "file", beside: ""}, files: {trace: texts.trace}};
  delete next.trace;
  if (texts.plan) {
    const plan = ask({ask: "plan", plan: texts.plan, plan_schedule: texts.csv, layers: texts.layers ?? files.layers});
    if (plan.error) return {error: plan.details};
    const numbers = {p: plan.ranks, m: plan.microbatches, batch: plan.batch};
    return {change: {...change, ...numbers, schedule: "file", beside: ""}, files: {csv: plan.csv, cost: plan.cost}, plan};
  }
  if (texts.csv) {
    change.schedule = "file";
    const found = ask({ask: "verify", csv: texts.csv});
    if (found.ranks) Object.assign(change, {p: found.ranks, m: found.microbatches});
  } else if (texts.cost && state.schedule !== "file") {
    const stages = stages_of(texts.cost);
    if (stages > 0) change.p = Math.max(1, Math.round(stages / (state.p ? stages_a_rank(state) : 1)));
  } else if (texts.layers && state.batch < 1) {
    change.batch = 32;
  }
  if (texts.cost) delete next.layers;
  if (texts.layers) delete next.cost;
  return {change, files: next};
}

function stages_of(cost) {
  try {
    return JSON.parse(cost).stages.length;
  } catch {
    return 0;
  }
}

let families = [];
export function know_families(list) { families = list; }
function stages_a_rank(state) {
  const family = families.find(one => one.name === state.schedule);
  return family?.stages_per_rank_varies ? state.v : family?.stages_per_rank ?? 1;
}

/** Reads what was dropped. Calls `take` with the texts by kind, or `refuse` with a sentence. */
export async function read_files(list, take, refuse) {
  const texts = {};
  for (const file of list) {
    if (file.size > longest_file) return refuse(`${file.name} has ${file.size} bytes; expected at most ${longest_file}; take a shorter file`);
    const text = await file.text();
    const kind = kind_of(file.name, text);
    if (!kind) return refuse(`${file.name} is none of the files that are shown; expected a schedule.csv, cost.json, plan.toml or timeline.json`);
    texts[kind] = text;
  }
  if (Object.keys(texts).length > 0) take(texts);
}

export function save(name, text) {
  const link = element("a", {href: URL.createObjectURL(new Blob([text], {type: "text/plain"})), download: name});
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
}

/** The tab. */
export function show_files(box, {files, shown, take, refuse, drop_files}) {
  const input = element("input", {type: "file", id: "file-input", multiple: true, accept: ".csv,.json,.toml", onchange: event => read_files(event.target.files, take, refuse)});
  const zone = element("div", {class: "drop", id: "drop"}, element("p", {}, element("label", {for: "file-input"}, "Drop files anywhere on this page, or choose them here: "), input),
    element("p", {}, "A ", element("code", {}, "schedule.csv"), " is verified; where it is wrong the counterexample is shown. A ", element("code", {}, "cost.json"),
      " (of stages or of layers) takes the place of the times. A ", element("code", {}, "plan.toml"), " is played, together with its cost.json as it was planned. A run's ",
      element("code", {}, "timeline.json"), " is laid over what the simulator predicts from its own medians."));
  box.append(zone);
  const names = Object.keys(files);
  if (names.length > 0)
    box.append(element("p", {}, "Shown now: " + names.map(name => ({csv: "a schedule", cost: "costs of stages", layers: "costs of layers", trace: "a run's timeline"})[name] ?? name).join(", ") + ". ",
      element("button", {type: "button", id: "drop-files", onclick: drop_files}, "Take the files away")));
  if (shown.plan) {
    box.append(element("p", {}, `The plan: ${shown.plan.schedule}, ${shown.plan.microbatches} microbatches; a step of ${shown.plan.prediction.step}, of which the pipeline takes ${shown.plan.prediction.pipeline}; ${shown.plan.prediction.computing} computing.`));
    for (const note of shown.plan.notes) box.append(element("p", {}, note));
  }
  if (shown.comparison) box.append(element("pre", {id: "comparison-text"}, shown.comparison));
  if (shown.details) box.append(element("pre", {id: "details"}, shown.details));
  box.append(element("p", {}, element("button", {type: "button", id: "save-cost", disabled: !shown.cost, onclick: () => save("cost.json", shown.cost)}, "Save cost.json"), " ",
    element("button", {type: "button", id: "save-schedule", disabled: !files.csv, onclick: () => save("schedule.csv", files.csv)}, "Save schedule.csv")),
    element("p", {}, "The command line reads both."));
}
