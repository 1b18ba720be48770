#!/usr/bin/env python3
"""Files that live: what a machine has, changed a little with each generation. Chance goes by the generation alone.

    churn.py make PLACE MEGABYTES LARGEST SOURCE...   # PLACE/files, none larger; in PLACE/pool what will be added later
    churn.py turn PLACE GENERATION                    # changes 2 % of the files in the middle, deletes 1 %, adds as many bytes, renames 0.5 %
    churn.py pick PLACE NUMBER                        # so many of the files, one a line
"""
import os
import random
import shutil
import stat
import sys


def candidates(largest, sources):
    """Whole directories in any order, so that what is like each other stays together."""
    directories = []
    for number, source in enumerate(sources):
        for top, below, names in os.walk(source):
            below.sort()
            directories.append((str(number), os.path.relpath(top, source), top, sorted(names)))
    random.Random(1).shuffle(directories)
    for number, relative, top, names in directories:
        for name in names:
            path = os.path.join(top, name)
            found = os.lstat(path)
            if "\n" not in path and stat.S_ISREG(found.st_mode) and 0 < found.st_size <= largest and os.access(path, os.R_OK):
                yield found.st_size, path, os.path.normpath(os.path.join(number, relative, name))


def copy(place, path, name):
    target = os.path.join(place, "files", name)
    os.makedirs(os.path.dirname(target), exist_ok=True)
    shutil.copyfile(path, target)


def make(place, megabytes, largest, *sources):
    os.makedirs(f"{place}/files")
    left = int(megabytes) * 1_000_000
    with open(f"{place}/pool", "w") as pool:
        for size, path, name in candidates(int(largest), sources):
            if left > 0:
                copy(place, path, name)
                left -= size
            else:
                pool.write(f"{path}\n{name}\n")
    if left > 0:
        sys.exit(f"the sources have {megabytes} MB less {left} bytes: name more of them")


def listed(place):
    files = os.path.join(place, "files")
    return sorted(os.path.relpath(os.path.join(top, name), files) for top, _, names in os.walk(files) for name in names)


def change(path, chance):
    with open(path, "rb") as file:
        data = file.read()
    at = len(data) // 2
    new = chance.randbytes(chance.randint(20, 200)).hex().encode()
    with open(path, "wb") as file:
        file.write(data[:at] + new + data[at + chance.randint(0, 400):])


def turn(place, generation):
    chance, files, names = random.Random(int(generation)), os.path.join(place, "files"), listed(place)
    part = max(1, len(names) // 200)
    taken = chance.sample(names, 7 * part)
    for name in taken[:4 * part]:
        change(os.path.join(files, name), chance)
    removed = sum(os.path.getsize(os.path.join(files, name)) for name in taken[4 * part:6 * part])
    for name in taken[4 * part:6 * part]:
        os.remove(os.path.join(files, name))
    gone = set(taken)
    homes = [os.path.dirname(name) for name in names if name not in gone]
    for name in taken[6 * part:]:
        os.rename(os.path.join(files, name), os.path.join(files, chance.choice(homes), f"{generation}-{os.path.basename(name)}"))
    add(place, removed)


def add(place, wanted):
    """About as many bytes: what the last file was too large is taken off the next time."""
    try:
        with open(f"{place}/taken") as file:
            at, over = map(int, file.read().split())
    except FileNotFoundError:
        at, over = 0, 0
    with open(f"{place}/pool") as pool:
        pool.seek(at)
        while over < wanted:
            path, name = pool.readline().rstrip("\n"), pool.readline().rstrip("\n")
            if not path:
                sys.exit("nothing is left to be added: name more sources")
            copy(place, path, name)
            over += os.path.getsize(path)
        at = pool.tell()
    with open(f"{place}/taken", "w") as file:
        file.write(f"{at} {over - wanted}")


def pick(place, number):
    names = listed(place)
    print("\n".join(random.Random(2).sample(names, min(int(number), len(names)))))


{"make": make, "turn": turn, "pick": pick}[sys.argv[1]](*sys.argv[2:])
