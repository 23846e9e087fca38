"""What README.md and docs/ show is what the program prints, and the options that they name exist."""

import pathlib
import re
import shlex
import unittest

import penstock_process as p

ROOT = pathlib.Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]

# Those that always print the same: no clock, no network that is trained, no file that the page only tells of.
CERTAIN = re.compile(r"penstock (schedule (show|compare)|simulate) (?!\S+\.csv)")


def shown(page):
    """The commands of a page's blocks that stand behind a $, each with the lines that follow it in the block."""
    lines = page.read_text().splitlines()
    for number, line in enumerate(lines):
        if line.startswith("    $ penstock "):
            output = []
            for following in lines[number + 1:]:
                if (following and not following.startswith("    ")) or following.startswith("    $ "):
                    break
                output.append(following[4:].rstrip())
            # Blank lines that stand between the block and the text after it.
            while output and not output[-1]:
                output.pop()
            yield line[6:], output


class Words(unittest.TestCase):
    def test_what_the_pages_show_is_what_is_printed(self):
        compared = 0
        for page in PAGES:
            for command, output in shown(page):
                if not CERTAIN.match(command):
                    continue
                with self.subTest(page=page.name, command=command):
                    code, out, err = p.run(*shlex.split(command)[1:])
                    self.assertEqual(code, 0, err)
                    self.assertEqual([line.rstrip() for line in out.splitlines()], output)
                compared += 1
        self.assertGreater(compared, 2)

    def test_every_option_that_the_pages_name_exists(self):
        for page in PAGES:
            # A line that ends in a backslash goes on in the next one.
            for line in page.read_text().replace("\\\n", " ").splitlines():
                found = re.match(r"    (?:\$ )?penstock ((?:schedule )?[a-z]+) (.*)", line)
                if not found:
                    continue
                command, rest = found.groups()
                code, told, _ = p.run(*command.split(), "--help")
                with self.subTest(page=page.name, line=line):
                    self.assertEqual(code, 0)
                    for option in re.findall(r"(?<!\S)--?[a-z][a-z-]*", rest.split("#")[0]):
                        self.assertRegex(told, rf"(?<![a-z-]){re.escape(option)}(?![a-z-])")


if __name__ == "__main__":
    unittest.main()
