"""Prints figures of the source code: lengths, comments, names used twice, crates in several versions.

figures.py      from the project's folder

Functions are found by rustfmt's indentation. Tests (files named *test*, simulation, testing, conformance, and
what follows `#[cfg(test)]` and `mod tests {`) count for files, not for the other figures.
"""
import pathlib, re, statistics, tomllib

TESTS = re.compile(r"test|simulation|conformance|fuzzing")


def functions(lines):
    """(length, line number) of each function."""
    for start, line in enumerate(lines):
        if re.match(r"\s*(pub(\([^)]*\))? )?(const )?(async )?fn \w+", line):
            indent = line[: len(line) - len(line.lstrip())]
            for end in range(start, len(lines)):
                if lines[end] == indent + "}" or (end == start and lines[end].endswith((";", "}"))):
                    yield end - start + 1, start + 1
                    break


def code(text):
    """The file up to its tests."""
    return text.split("#[cfg(test)]\nmod tests {")[0].splitlines()


files = sorted(pathlib.Path("src").rglob("*.rs"))
lengths = {file: len(file.read_text().splitlines()) for file in files}
longest = max(lengths, key=lengths.get)
print(f"files: {len(files)}, {sum(lengths.values())} lines; median {statistics.median(lengths.values()):.0f}, "
      f"longest {lengths[longest]} ({longest})")

sources = [(file, code(file.read_text())) for file in files if not TESTS.search(str(file))]
found = sorted((length, f"{file}:{line}") for file, lines in sources for length, line in functions(lines))
print(f"functions: {len(found)}; median {statistics.median(n for n, _ in found):.0f} lines, longest {found[-1][0]} "
      f"({found[-1][1]}); over 60 lines: {sum(n > 60 for n, _ in found)}")

lines = [line.strip() for _, some in sources for line in some if line.strip()]
docs = sum(line.startswith(("///", "//!")) for line in lines)
plain = sum(line.startswith("//") for line in lines) - docs
print(f"lines that are not blank: {len(lines)}; doc comments {100 * docs / len(lines):.1f} %, "
      f"other comments {100 * plain / len(lines):.1f} %")

names = {}
for file, some in sources:
    for line in some:
        if match := re.match(r"\s*pub (?:struct|enum|trait|type) (\w+)", line):
            names.setdefault(match[1], set()).add(str(file))
doubled = {name: sorted(where) for name, where in names.items() if len(where) > 1}
print(f"public types: {len(names)}; names used twice: {len(doubled)}")
for name, where in sorted(doubled.items()):
    print(f"  {name}: {', '.join(where)}")

texts = sum(line.count(", String>") for line in lines if "Result<" in line)
unsafe = sum(bool(re.search(r"\bunsafe (fn|\{|impl)", line)) for line in lines)
print(f"lines with Result<_, String>: {texts}; unsafe: {unsafe}")

packages = tomllib.load(open("Cargo.lock", "rb"))["package"]
versions = {}
for package in packages:
    versions.setdefault(package["name"], []).append(package["version"])
several = {name: found for name, found in versions.items() if len(found) > 1}
print(f"crates in Cargo.lock: {len(packages)}; in several versions: {len(several)}")
for name, found in sorted(several.items()):
    print(f"  {name}: {', '.join(found)}")
