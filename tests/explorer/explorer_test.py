#!/usr/bin/env python3
"""Holds the explorer's page against the command line, in a headless Chromium.

usage: tests/explorer/explorer_test.py PAGE COMMAND [SEED]

PAGE is build/explorer/penstock-explorer.html, COMMAND the program penstock. Ends with exit code 77, which CTest takes for a skipped
test, where the page has not been built, or there is no Chromium.
"""

import json
import random
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import browser

SETTINGS = 200
MOST_REDRAW_MS = 50
SKIPPED = 77


def drawn_setting(rng):
    """A state of the page."""
    names = ["naive", "gpipe", "1f1b", "interleaved-1f1b", "looped-bfs", "zb-h1", "zb-h2", "interleaved-zb", "zb-v", "v-half", "v-min",
             "chimera", "dualpipe", "dualpipev", "hanayo", "forward-only"]
    schedule = rng.choice(names)
    ranks = rng.randint(1, 12)
    if schedule in ("chimera", "dualpipe"):
        ranks += ranks % 2
    state = {"schedule": schedule, "p": ranks, "m": rng.randint(1, 24), "v": rng.choice([2, 4]) if schedule == "hanayo" else rng.randint(1, 4),
             "f": round(rng.uniform(0.1, 9), rng.randint(0, 6)), "i": round(rng.uniform(0.1, 9), rng.randint(0, 6)), "w": round(rng.uniform(0.1, 9), 3),
             "lat": rng.choice([0, round(rng.uniform(0, 3), 4)]), "bw": rng.choice([0, round(rng.uniform(0.5, 50), 2)]),
             "act": rng.choice([0, rng.randint(1, 3000), round(rng.uniform(0.001, 40), 5)]), "bound": rng.choice([0, rng.randint(1, 300)]),
             "par": rng.choice([0, rng.randint(1, 9000)]), "cap": rng.choice([0, 0, rng.randint(1, 40000)]),
             "batch": 0, "fix": 0, "beside": "", "tour": 0, "tab": "files"}
    if rng.random() < 0.3:
        state |= {"batch": rng.randint(1, 128), "fix": round(rng.uniform(0, 5), 2)}
    return state


def shown_by_page(page, state):
    """What stands on the page for a state, its cost.json, and the whole answer behind it."""
    return page.run(f"""(() => {{
      penstock.page.files = {{}};
      penstock.change({json.dumps(state)});
      const text = id => document.getElementById(id)?.textContent ?? "";
      const answer = penstock.ask(penstock.request());
      return {{makespan: text("makespan"), bubble: text("bubble"), span: text("bubble-span"), memory: text("peak-memory"),
        activations: text("peak-activations"), error: document.getElementById("error").hidden ? "" : text("error"),
        command: text("command-line"), cost: answer.cost, answer: answer.answer, figures: answer.figures, details: answer.details}};
    }})()""")


def compare_setting(page, command, state, folder):
    """Complaints about one setting, and how many figures were compared."""
    shown = shown_by_page(page, state)
    if shown["error"]:
        return [f"the page refuses it: {shown['error']}"], 0
    (folder / "cost.json").write_text(shown["cost"])
    words = shown["command"].split()
    printed = [subprocess.run([command, *words[1:], *more], cwd=folder, capture_output=True, text=True, check=False) for more in ([], ["--json"])]
    if any(run.returncode for run in printed):
        return [f"the command refuses it: {printed[0].stderr}"], 0
    text, answer = printed[0].stdout, json.loads(printed[1].stdout)
    problems = []
    if answer != shown["answer"]:
        problems.append(f"in JSON the command says {answer}, the page {shown['answer']}")
    # The figures on the page, to the character as the command prints them.
    wanted = [f"makespan {shown['makespan']}, bubble {shown['bubble']} of the makespan, {shown['span'] or shown['bubble']} of the longest span"]
    problems += [f"the command does not print '{words}'" for words in wanted if words not in text]
    table = [line.split(None, 3) for line in text.splitlines() if line[:4].strip().isdigit()]
    for rank, (row, figures) in enumerate(zip(table, shown["figures"]["ranks"], strict=True)):
        found = [figures["busy"].removesuffix(" ms"), str(figures["peak_activations"]), figures.get("peak_memory", "")]
        if found != [row[1], row[2], row[3] if len(row) > 3 else ""]:
            problems.append(f"rank {rank}: the command prints {row}, the page {found}")
    most = max(answer["ranks"], key=lambda rank: rank["peak_bytes"] or 0)["rank"]
    if shown["memory"] and shown["memory"] != table[most][3]:
        problems.append(f"peak memory: the command prints {table[most][3]}, the page {shown['memory']}")
    if shown["figures"]["over_caps"] != [line for line in text.splitlines() if "above its cap" in line]:
        problems.append("ranks above their cap differ")
    return problems, 3 + 3 * len(table)


def test_numbers(page, command, seed):
    rng = random.Random(seed)
    page.open()
    figures = 0
    with tempfile.TemporaryDirectory() as name:
        for number in range(SETTINGS):
            state = drawn_setting(rng)
            problems, count = compare_setting(page, command, state, Path(name))
            figures += count
            if problems:
                return [f"seed {seed}, setting {number}, {state}: {problem}" for problem in problems]
    print(f"numbers: {SETTINGS} settings (seed {seed}), {figures} figures equal to the command's, and all of its JSON")
    return []


def test_redraw(page):
    """The time that a change takes the page's script, the drawing of the canvases included, of every schedule at 16 ranks and 64
    microbatches. What the browser does afterwards to put the canvases on the screen is not in it."""
    page.set_size(1360, 900)
    page.open("p=16&m=64")
    names = page.run("penstock.page.families.map(family => family.name)")
    times = {}
    for name in names:
        page.run(f"penstock.change({{schedule: '{name}', m: 63, p: 16}})")
        taken = []
        for forward in (1, 1.5, 2):
            taken.append(page.run(f"""new Promise(done => {{
              requestAnimationFrame(() => {{
                const begun = performance.now();
                penstock.change({{m: 64, f: {forward}}});
                const script = performance.now() - begun;
                done(script);
              }});
            }})"""))
        times[name] = statistics.median(taken)
    slowest = max(times, key=times.get)
    print(f"redraw at 16 ranks and 64 microbatches: 1f1b {times['1f1b']:.1f} ms, slowest {slowest} {times[slowest]:.1f} ms, expected at most {MOST_REDRAW_MS} ms")
    return [f"a change redraws in {time:.1f} ms for {name}; expected at most {MOST_REDRAW_MS} ms" for name, time in times.items() if time > MOST_REDRAW_MS]


def expect(problems, what, found, wanted):
    if found != wanted:
        problems.append(f"{what}: found {found!r}, expected {wanted!r}")


def figures_of(page):
    return page.run("Object.fromEntries(['makespan', 'bubble', 'idle', 'peak-memory'].map(id => [id, document.getElementById(id)?.textContent]))")


def test_tour(page):
    """The three questions that the explorer alone has to answer, at the steps of the tour that answer them."""
    problems = []
    page.open("tour=1")
    page.run("document.getElementById('start-tour').click()")
    seen = []
    for step in range(1, 8):
        seen.append(figures_of(page))
        if step == 5:
            beside = page.run("penstock.page.panels[1].answer.figures.peak_memory")
            expect(problems, "GPipe's memory beside that of 1F1B", (beside, seen[-1]["peak-memory"]), ("128 MiB", "48 MiB"))
        if step == 7:
            sentence = page.run("document.getElementById('sweep-sentence').textContent")
            expect(problems, "the best number", sentence, "With 1F1B the best number is 8: a step takes 300 ms.")
        page.run("document.getElementById('tour-next').click()")
    expect(problems, "the tour's end", page.run("document.getElementById('tour').hidden"), True)
    expect(problems, "idle with one microbatch", (seen[2]["idle"], seen[2]["makespan"]), ("48 ms", "72 ms"))
    expect(problems, "idle with eight", (seen[3]["idle"], seen[3]["makespan"]), ("6 ms", "30 ms"))
    expect(problems, "the split backward", seen[5]["makespan"], "25 ms")
    return problems


def test_links(page):
    """A link shows the same picture, that of a file and of a moment too."""
    problems = []
    page.open("schedule=zb-v&p=3&m=6&f=2&lat=0.25&beside=gpipe&at=0.4&theme=dark")
    first = page.run("[location.hash, document.getElementById('makespan').textContent, document.getElementById('now').textContent, document.documentElement.dataset.theme]")
    page.open(first[0][1:])
    second = page.run("[location.hash, document.getElementById('makespan').textContent, document.getElementById('now').textContent, document.documentElement.dataset.theme]")
    expect(problems, "a link opened again", second, first)
    expect(problems, "the theme of a link", first[3], "dark")
    page.open("p=3&m=4")
    page.run("penstock.take({csv: '0F0,0F1,0B0,0B1\\n1F0,1B0,1F1,1B1\\n'})")
    first = page.run("[location.hash, document.getElementById('makespan').textContent]")
    page.open(first[0][1:])
    expect(problems, "the link of a file", page.run("[location.hash, document.getElementById('makespan').textContent]"), first)
    page.open("p=nonsense&m=4&schedule=1f2b&files=AAAA&tour=99")
    expect(problems, "a link of nonsense is refused in words", "there is no schedule" in page.run("document.getElementById('error').textContent"), True)
    return problems


def test_files(page, command):
    """A wrong schedule shows its counterexample; a run's timeline is laid over its prediction; costs are taken."""
    problems = []
    page.open()
    page.run("penstock.take({csv: '0F0,0F1,0B1,0B0\\n1F0,1F1,1B0,1B1\\n'})")
    shown = page.run("[document.getElementById('error').textContent, penstock.page.panels[0].canvas.hidden]")
    expect(problems, "the counterexample's words", shown[0].startswith("rank 0, position 3: 0B0 adds its gradient after 0B1"), True)
    expect(problems, "its grid is hidden", shown[1], False)
    page.run("penstock.take({csv: '0F0,0B0\\n1B0,1F0\\n'})")
    expect(problems, "a deadlock's words", page.run("document.getElementById('error').textContent").startswith("rank 1, position 0: 1B0"), True)
    trace = subprocess.run([command, "schedule", "show", "1f1b", "--ranks", "3", "--microbatches", "5", "--input-backward", "2", "--format", "trace"],
                           capture_output=True, text=True, check=True).stdout
    page.run(f"penstock.take({{trace: {json.dumps(trace)}}})")
    names = page.run("penstock.page.panels.filter(panel => !panel.box.hidden).map(panel => panel.heading.textContent + ' ' + panel.answer.figures.makespan)")
    expect(problems, "a run's timeline", names, ["measured 28 ms", "predicted 28 ms"])
    stage = {"forward_ms": 1, "input_backward_ms": 1, "weight_backward_ms": 1}
    page.open("schedule=gpipe")
    page.run(f"penstock.take({{cost: {json.dumps(json.dumps({'stages': [stage, stage | {'forward_ms': 3}]}))}}})")
    expect(problems, "a cost file's stages", page.run("penstock.page.state.p"), 2)
    expect(problems, "what a file of no kind is", page.run("penstock.kind_of('a.txt', 'hello')"), "")
    return problems


def test_keyboard(page):
    """Everything is reached with the keyboard alone."""
    problems = []
    page.open("p=3&m=4&schedule=gpipe")
    page.press("t")
    expect(problems, "T starts the tour", page.run("penstock.page.state.tour"), 1)
    page.press("Tab")
    page.press("Tab")
    expect(problems, "what two tabs reach", page.run("document.activeElement.id"), "tour-end")
    page.press("Enter")
    expect(problems, "Enter leaves the tour", page.run("penstock.page.state.tour"), 0)
    page.run("document.getElementById('slide-m').focus()")
    page.press("ArrowRight")
    expect(problems, "an arrow on a slider", page.run("penstock.page.state.m"), 2)
    page.open("p=3&m=4&schedule=gpipe")
    page.run("penstock.page.panels[0].canvas.focus()")
    page.press("ArrowRight")
    expect(problems, "an arrow on the grid", page.run("penstock.page.time"), 1)
    tip = "document.getElementById('tip').hidden ? '' : document.getElementById('tip').textContent.split('\\n')[0]"
    expect(problems, "what it tells", page.run(tip), "0F1: forward of microbatch 1 on stage 0")
    page.press("ArrowDown")
    expect(problems, "of the next device", page.run(tip), "1F0: forward of microbatch 0 on stage 1")
    page.press("ArrowDown")
    expect(problems, "of one that is idle", page.run(tip), "rank 2: idle at 1 ms")
    page.press(" ")
    expect(problems, "Space plays", page.run("penstock.page.playing"), True)
    page.run("document.getElementById('tab-compare').focus()")
    page.press("ArrowRight")
    expect(problems, "an arrow on the tabs", page.run("penstock.page.state.tab"), "sweep")
    hidden = page.run("""[...document.querySelectorAll("button, select, input")].filter(one => !one.labels?.length && !one.textContent.trim() && !one.ariaLabel).map(one => one.id)""")
    expect(problems, "controls without a name", hidden, [])
    return problems


def test_narrow(page):
    problems = []
    page.set_size(360, 740)
    page.open("tour=5&schedule=1f1b&p=3&m=8&batch=8&beside=gpipe")
    expect(problems, "the width of the page on a narrow screen", page.run("document.documentElement.scrollWidth") <= 360, True)
    page.set_size(1360, 900)
    return problems


def main(arguments):
    if len(arguments) not in (2, 3):
        print(__doc__.strip())
        return 2
    file, command = arguments[:2]
    for missing, reason in ((not Path(file).is_file(), f"{file} is not there: script/explorer builds it"),
                            (not browser.find_chromium(), "there is no chromium on the path"),
                            (not Path(command).is_file(), f"{command} is not there: the preset release builds it")):
        if missing:
            print(f"skipped: {reason}")
            return SKIPPED
    command = str(Path(command).resolve())
    seed = int(arguments[2]) if len(arguments) > 2 else 20261129
    problems = []
    with browser.Page(file) as page:
        tests = [lambda: test_numbers(page, command, seed), lambda: test_redraw(page), lambda: test_tour(page), lambda: test_links(page),
                 lambda: test_files(page, command), lambda: test_keyboard(page), lambda: test_narrow(page)]
        for test in tests:
            problems += test()
        problems += [f"the page complains: {complaint}" for complaint in page.complaints]
        # The page itself, what stands within it, and nothing else.
        asked = [address for address in page.asked if not address.startswith((page.address, "data:", "about:", "blob:"))]
        problems += [f"the page asked for {address}" for address in asked]
    for problem in problems:
        print(f"failed: {problem}")
    print(f"explorer: {Path(file).stat().st_size} bytes, {len(page.asked)} requests, all for the page itself, {len(problems)} problems")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
