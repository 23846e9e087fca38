// The page: keeps the state, asks the C++ code when it changes, and draws.
import {build_controls, show_controls} from "./controls.js";
import {ask, start} from "./engine.js";
import {kind_of, know_families, read_files, taken} from "./files.js";
import {Flow} from "./flow.js";
import {Grid, describe, draw_cells, most_memory, place_cursor} from "./grid.js";
import {FIELDS, counted, element, kinds, number} from "./paint.js";
import {beginning, from_hash, pack, request_of, to_hash} from "./state.js";
import {tabs, title_of} from "./tabs.js";
import {show_tour, steps} from "./tour.js";

const $ = id => document.getElementById(id);
const page = {state: {...beginning}, files: {}, packed: "", families: [], panels: [], shown: {}, time: 0, playing: false, last: 1};
let flow, rows;

// ---- what is asked --------------------------------------------------------------------------------------------------------------

/** The pictures of a state, the chosen one first: a name, and an answer of the C++ code each. */
function pictures_of(state, files) {
  if (state.schedule === "file" && files.trace) {
    const answer = ask({ask: "measured", trace: files.trace});
    if (answer.error) return [{name: "measured", answer}];
    return [{name: "measured", answer: answer.measured, comparison: answer.comparison}, {name: "predicted", answer: answer.predicted}];
  }
  const names = [state.schedule, ...(state.beside ? state.beside.split(",") : [])].filter((name, at, all) => all.indexOf(name) === at);
  return names.map(name => ({name, answer: refusal_of(name, files) ?? ask(request_of(state, files, name))}));
}

/** Why a file's schedule is none that penstock runs, or nothing. */
function refusal_of(name, files) {
  if (name !== "file" || !files.csv) return null;
  const found = ask({ask: "verify", csv: files.csv});
  return found.correct === false ? {error: found.message, details: found.details} : null;
}

/** Changes the state (`null`: back to the beginning), and everything that follows from it. */
function change(difference, keep = {}) {
  if (difference === null) {
    page.files = {};
    page.packed = "";
    page.shown = {};
  }
  page.state = difference === null ? {...beginning, theme: page.state.theme} : {...page.state, ...difference};
  if (page.state.schedule === "file" && !page.files.csv && !page.files.trace) page.state.schedule = beginning.schedule;
  render(keep);
}

function render({tabs_at_once = false} = {}) {
  const begun = performance.now();
  const {state, files} = page;
  const pictures = pictures_of(state, files);
  const [first] = pictures;
  show_controls(rows, state, files, page.families);
  show_chips();
  show_error(first);
  const good = pictures.filter(picture => !picture.answer.error);
  const main = first.answer.error ? null : first;
  page.last = Math.max(...good.map(picture => end_of(picture.answer.timeline)), 1e-9);
  $("player").hidden = $("figures").hidden = $("command").hidden = main === null;
  if (main) {
    show_figures(main);
    flow.show(main.answer.timeline, main.answer.link);
    page.shown = {...page.shown, cost: main.answer.cost, comparison: first.comparison};
  }
  show_panels(pictures);
  show_legend(good);
  page.time = Math.min(state.at, 1) * page.last;
  if (!page.playing) move_to(page.time, false);
  document.documentElement.dataset.redrawMs = (performance.now() - begun).toFixed(1);
  history.replaceState(null, "", to_hash(state, page.packed));
  show_tabs_soon(tabs_at_once);
}

function end_of(timeline) {
  return Math.max(0, ...timeline.ranks.map(events => events.length > 0 ? events[events.length - FIELDS + 1] : 0));
}

// ---- what is shown --------------------------------------------------------------------------------------------------------------

function show_error({name, answer}) {
  const box = $("error");
  box.hidden = !answer.error;
  page.shown.details = answer.error && name === "file" ? answer.details : "";
  if (answer.error) box.textContent = (name === "file" ? "" : title_of(page.families, name) + ": ") + answer.error;
}

function figure(name, value, more = [], id = "") {
  return element("div", {class: "figure"}, element("div", {class: "name"}, name), element("div", {class: "value", id}, value), ...more.map(line => element("div", {class: "more"}, line)));
}

function show_figures({name, answer}) {
  const {figures, formula} = answer;
  const idle = [...new Set(figures.ranks.map(rank => rank.idle))];
  const bubble = [];
  if (formula) {
    const exact = element("span", {}, "formula ", element("b", {}, formula.words), formula.idle_text ? ` = ${formula.idle_text}: ` : ": ", element("b", {id: "formula-share"}, formula.share_text));
    bubble.push(exact, (formula.of_makespan ? "of the step" : "of a rank's span") + (formula.condition ? ", " + formula.condition : "") + ", links free");
  }
  const span = figures.bubble_span === figures.bubble_makespan ? [] : [element("span", {}, "of the longest span ", element("b", {id: "bubble-span"}, figures.bubble_span))];
  const memory = figures.peak_memory
    ? figure("Peak memory of a device", figures.peak_memory, [`${counted(figures.peak_activations, "activation")} of a stage at once`, ...figures.over_caps.slice(0, 1)], "peak-memory")
    : figure("Peak activations of a device", String(figures.peak_activations), ["of one microbatch on one stage"], "peak-activations");
  if (figures.over_caps.length > 0) memory.classList.add("over");
  $("figures").replaceChildren(
    figure("A step takes", figures.makespan, [`a stage: F ${answer.stage_times[0]}, B to input ${answer.stage_times[1]}, to weights ${answer.stage_times[2]}`], "makespan"),
    figure("Bubble of the step", figures.bubble_makespan, [...span, ...bubble], "bubble"),
    figure("A device is idle for", idle.length === 1 ? idle[0] : `${idle[0]} (rank 0)`, idle.length === 1 ? ["each of them, in a step"] : ["the table of ranks has the others"], "idle"),
    memory);
  $("command").replaceChildren("The same from the command line: ", element("code", {id: "command-line"}, answer.command), answer.command.includes("cost.json") ? " (cost.json: tab Files)" : "");
  document.title = `${title_of(page.families, name)}, ${answer.ranks} devices: ${figures.makespan} · penstock explorer`;
}

function show_legend(pictures) {
  const seen = new Set();
  for (const {answer} of pictures)
    for (const events of answer.timeline.ranks) for (let at = 2; at < events.length; at += FIELDS) seen.add(events[at]);
  $("legend").replaceChildren(...kinds.filter((kind, at) => seen.has(at)).map(kind => element("span", {style: `--swatch: ${kind.fill}`}, kind.title)),
    ...(pictures.some(({answer}) => answer.figures.peak_memory) ? [element("span", {style: "--swatch: var(--memory)"}, "memory")] : []),
    ...(pictures.length > 0 ? [element("div", {}, "numbers: microbatches")] : []));
}

function panel_of(at) {
  if (page.panels[at]) return page.panels[at];
  const heading = element("h3"), figures = element("span", {class: "figures"}), hide = element("button", {type: "button"}, "hide");
  const canvas = element("canvas", {role: "img", tabindex: "0"});
  const line = element("div", {style: "position:absolute;top:0;width:2px;background:var(--ink);opacity:0.55;pointer-events:none"});
  const table = element("details", {}, element("summary", {}, "Table of ranks"));
  const box = element("div", {class: "panel"}, element("div", {class: "panel-head"}, heading, figures, hide), element("div", {style: "position:relative"}, canvas, line), table);
  const grid = new Grid(canvas, time => { pause(); move_to(time); });
  canvas.addEventListener("keydown", event => {
    const across = {ArrowLeft: -1, ArrowRight: 1}[event.key] ?? 0, down = {ArrowUp: -1, ArrowDown: 1}[event.key] ?? 0;
    if (across === 0 && down === 0 || !panel.answer) return;
    event.preventDefault();
    pause();
    if (across !== 0) move_to(flow.neighbour(page.time, across));
    panel.rank = Math.min(Math.max(panel.rank + down, 0), panel.answer.timeline.ranks.length - 1);
    grid.tell(panel.rank, page.time);
  });
  const panel = {rank: 0, box, heading, figures, hide, canvas, line, table, grid};
  table.addEventListener("toggle", () => fill_table(panel));
  page.panels.push(panel);
  $("panels").append(box);
  return panel;
}

function fill_table(panel) {
  if (!panel.table.open || !panel.answer) return;
  const with_bytes = Boolean(panel.answer.figures.peak_memory);
  const names = ["rank", "busy", "idle", "peak activations", ...(with_bytes ? ["peak memory"] : [])];
  const body = panel.answer.figures.ranks.map((rank, index) => element("tr", {}, element("td", {}, String(index)), element("td", {}, rank.busy), element("td", {}, rank.idle),
    element("td", {}, String(rank.peak_activations)), with_bytes ? element("td", {}, rank.peak_memory) : ""));
  panel.table.replaceChildren(panel.table.firstChild, element("table", {}, element("thead", {}, element("tr", {}, ...names.map(name => element("th", {scope: "col"}, name)))), element("tbody", {}, ...body)));
}

function show_panels(pictures) {
  // One axis for all, or the eye would compare what cannot be compared. Without sizes a cap alone is nothing to draw.
  const used = Math.max(0, ...pictures.map(({answer}) => answer.error ? 0 : most_memory(answer.timeline)));
  const caps = pictures.map(({answer}) => answer.error ? 0 : answer.answer.ranks[0].memory_cap_bytes ?? 0);
  // A cap far above everything would press it flat.
  const most = used > 0 ? Math.max(used, ...caps.filter(cap => cap <= 4 * used)) : 0;
  pictures.forEach((picture, at) => {
    const panel = panel_of(at);
    const {answer, name} = picture;
    panel.box.hidden = false;
    panel.answer = answer.error ? null : answer;
    panel.heading.textContent = title_of(page.families, name);
    panel.hide.hidden = at === 0 || name === "predicted";
    panel.hide.onclick = () => change({beside: page.state.beside.split(",").filter(one => one !== name).join(",")});
    panel.line.hidden = panel.table.hidden = Boolean(answer.error);
    panel.canvas.hidden = false;
    panel.canvas.style.width = "";
    if (answer.error) return show_refusal(panel, picture);
    const {figures} = answer;
    panel.figures.textContent = `step ${figures.makespan}, bubble ${figures.bubble_makespan}, ${figures.peak_memory ?? counted(figures.peak_activations, "activation")}`;
    panel.canvas.setAttribute("aria-label", `${panel.heading.textContent}: ${panel.figures.textContent}. Arrow keys go from action to action and from device to device.`);
    panel.grid.show(answer.timeline, page.last, answer.answer.ranks[0].memory_cap_bytes ?? 0, most);
    fill_table(panel);
  });
  for (const panel of page.panels.slice(pictures.length)) panel.box.hidden = true;
}

/** A file's counterexample in its grid; of a family only the reason. */
function show_refusal(panel, {name, answer}) {
  panel.canvas.hidden = true;
  panel.figures.textContent = name === page.state.schedule ? "" : answer.error;
  if (name !== "file" || !page.files.csv) return;
  const found = ask({ask: "verify", csv: page.files.csv});
  if (!found.cells) return;
  const marked = new Set([...found.message.matchAll(/rank (\d+), position (\d+)/g)].map(([, rank, position]) => rank + ":" + position));
  panel.canvas.hidden = false;
  panel.canvas.parentElement.style.overflowX = "auto";
  draw_cells(panel.canvas, found.cells, marked);
  panel.canvas.setAttribute("aria-label", "The schedule, with the actions of the counterexample marked: " + found.message);
}

function show_chips() {
  const names = {csv: "schedule from a file or search", cost: "costs from a file", layers: "costs of layers from a file", trace: "a run's timeline"};
  $("chips").replaceChildren(...Object.keys(page.files).filter(key => names[key]).map(key => element("div", {class: "chip"}, names[key],
    element("button", {type: "button", "aria-label": "Take away: " + names[key], onclick: () => take_away(key)}, "✕"))));
}

let tabs_timer = 0;
function show_tabs_soon(at_once) {
  clearTimeout(tabs_timer);
  if (at_once) show_tab();
  else tabs_timer = setTimeout(show_tab, 150);
}

function show_tab() {
  for (const button of $("tabs").children) {
    button.setAttribute("aria-selected", String(button.dataset.tab === page.state.tab));
    button.tabIndex = button.dataset.tab === page.state.tab ? 0 : -1;
  }
  const box = $("tab-content");
  const focused = box.contains(document.activeElement) ? document.activeElement.id : "";
  box.replaceChildren();
  const tab = tabs.find(one => one.key === page.state.tab) ?? tabs[0];
  tab.show(box, {...page, change, take_schedule, take, refuse, drop_files: () => change(null)});
  if (focused) $(focused)?.focus();
  document.documentElement.dataset.ready = "yes";
}

// ---- files ----------------------------------------------------------------------------------------------------------------------

async function set_files(files, difference, shown = {}) {
  page.files = files;
  page.packed = await pack(files);
  page.shown = shown;
  change(difference, {tabs_at_once: true});
}

function take(texts) {
  const next = taken(page.state, page.files, texts);
  if (next.error) return refuse(next.error);
  return set_files(next.files, next.change, {plan: next.plan});
}

function refuse(message) {
  $("error").hidden = false;
  $("error").textContent = message;
}

function take_schedule(csv, beside) {
  return set_files({...page.files, csv}, {schedule: "file", beside: beside ?? ""});
}

function take_away(key) {
  const files = {...page.files};
  delete files[key];
  return set_files(files, key === "csv" || key === "trace" ? {schedule: beginning.schedule} : {});
}

// ---- time -----------------------------------------------------------------------------------------------------------------------

function move_to(time, remember = true) {
  page.time = Math.min(Math.max(time, 0), page.last);
  $("time").value = String(Math.round(page.time / page.last * 1000));
  const working = flow.timeline ? flow.draw(page.time) : 0;
  $("now").textContent = `${number(page.time)} ms: ${working} of ${flow.timeline?.ranks.length ?? 0} work`;
  for (const panel of page.panels) if (!panel.box.hidden && panel.answer) place_cursor(panel.line, panel.grid, page.time);
  if (!remember) return;
  page.state.at = Number((page.time / page.last).toFixed(4));
  if (!page.playing) history.replaceState(null, "", to_hash(page.state, page.packed));
}

let frame_time = 0;
function frame(now) {
  if (!page.playing) return;
  const seconds_of_a_step = 12;
  const on = (now - frame_time) / 1000 / seconds_of_a_step * Number($("speed").value) * page.last;
  frame_time = now;
  if (page.time + on >= flow.last) {
    move_to(flow.last);
    return pause();
  }
  move_to(page.time + on);
  requestAnimationFrame(frame);
}

function play() {
  if (page.playing) return pause();
  page.playing = true;
  $("play").textContent = "Pause";
  if (page.time >= flow.last * (1 - 1e-9)) page.time = 0;
  frame_time = performance.now();
  requestAnimationFrame(frame);
}

function pause() {
  page.playing = false;
  $("play").textContent = "Play";
  if (flow.timeline) move_to(page.time);
}

function step(direction) {
  pause();
  move_to(flow.neighbour(page.time, direction));
}

// ---- the beginning --------------------------------------------------------------------------------------------------------------

function go(number_of_step) {
  pause();
  page.files = {};
  page.packed = "";
  page.shown = {};
  const {theme} = page.state;
  change(number_of_step === 0 ? {tour: 0} : {...beginning, theme, ...steps[number_of_step - 1].state, tour: number_of_step}, {tabs_at_once: true});
  show_tour($("tour"), number_of_step, go);
  if (number_of_step > 0) $("tour-title").focus();
}

function set_theme(choice) {
  const dark = choice === "dark" || (choice === "auto" && matchMedia("(prefers-color-scheme: dark)").matches);
  document.documentElement.dataset.theme = dark ? "dark" : "light";
}

function redraw() {
  for (const panel of page.panels) if (!panel.box.hidden && panel.answer) panel.grid.draw();
  if (flow.timeline) flow.resize();
  move_to(page.time, false);
  show_tab();
}

function wire() {
  $("play").onclick = play;
  $("step-on").onclick = () => step(1);
  $("step-back").onclick = () => step(-1);
  $("time").oninput = event => { pause(); move_to(Number(event.target.value) / 1000 * page.last); };
  $("start-tour").onclick = () => go(1);
  $("copy-link").onclick = async () => {
    try {
      await navigator.clipboard.writeText(location.href);
      $("copy-link").textContent = "Copied";
    } catch {
      $("copy-link").textContent = "Copy it from the address bar";
    }
  };
  $("theme").onchange = event => { set_theme(event.target.value); change({theme: event.target.value}); };
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => { set_theme($("theme").value); redraw(); });
  let resize_timer = 0;
  let width = window.innerWidth;
  window.addEventListener("resize", () => {
    if (window.innerWidth === width) return;
    width = window.innerWidth;
    clearTimeout(resize_timer);
    resize_timer = setTimeout(redraw, 80);
  });
  window.addEventListener("keydown", event => {
    const writes = /^(INPUT|SELECT|TEXTAREA|BUTTON|SUMMARY)$/.test(event.target.tagName);
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.key === " " && !writes) { event.preventDefault(); play(); }
    if (event.key.toLowerCase() === "t" && !(writes && event.target.type === "number")) go(1);
  });
  window.addEventListener("hashchange", load);
  window.addEventListener("dragover", event => { event.preventDefault(); $("drop")?.classList.add("over-it"); });
  window.addEventListener("dragleave", () => $("drop")?.classList.remove("over-it"));
  window.addEventListener("drop", event => { event.preventDefault(); read_files(event.dataTransfer.files, take, refuse); });
  for (const tab of tabs) {
    $("tabs").append(element("button", {type: "button", role: "tab", id: "tab-" + tab.key, "data-tab": tab.key, "aria-controls": "tab-content", onclick: () => change({tab: tab.key}, {tabs_at_once: true})}, tab.title));
  }
  $("tabs").addEventListener("keydown", event => {
    const on = {ArrowRight: 1, ArrowLeft: -1}[event.key];
    if (!on) return;
    const at = tabs.findIndex(tab => tab.key === page.state.tab);
    const next = tabs[(at + on + tabs.length) % tabs.length];
    change({tab: next.key}, {tabs_at_once: true});
    $("tab-" + next.key).focus();
  });
}

async function load() {
  const {state, files} = await from_hash(location.hash);
  page.files = files;
  page.packed = await pack(files);
  page.shown = {};
  pause();
  $("theme").value = ["light", "dark"].includes(state.theme) ? state.theme : "auto";
  set_theme($("theme").value);
  change(state, {tabs_at_once: true});
  show_tour($("tour"), Math.min(Math.max(Math.round(state.tour), 0), steps.length), go);
}

async function begin() {
  set_theme("auto");
  await start();
  page.families = ask({ask: "families"}).families;
  know_families(page.families);
  rows = build_controls($("controls"), page.families, change);
  flow = new Flow($("flow"));
  wire();
  await load();
}

// For tests and for the curious: what the page asks, and the page's own state.
window.penstock = {ask, describe, kind_of, page, change, take, request: name => request_of(page.state, page.files, name ?? page.state.schedule)};
begin();
