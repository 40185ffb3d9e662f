#!/usr/bin/env python3
"""Rules about the sources that no compiler checks. Usage: check_sources.py ROOT

Layers include only what they may; lib/ and kernels/ call nothing that a library in somebody's process must not; nothing in
the tree refers to what lies outside it; every public symbol is listed and documented. Prints each finding, exits 1 if any.
"""
import pathlib
import re
import sys

LAYERS = {  # folder: folders it may include from, beside itself and include/glm45
    'lib/base': [],
    'lib/io': ['lib/base'],
    'lib/text': ['lib/base'],
    'kernels': ['lib/base'],
    'lib/backend': ['lib/base', 'kernels'],
    'lib/model': ['lib/base', 'lib/io', 'lib/backend'],
    'lib/engine': ['lib/model', 'lib/backend', 'lib/io', 'lib/text', 'lib/base'],
    'lib/api': ['lib/engine', 'lib/base'],
    'examples': [],
}
KERNELS_MAY = {'lib/base/weight.h', 'lib/base/base.h'}  # number formats; base.h for the CPU_* bits only

BANNED = ('abort exit _exit _Exit quick_exit assert raise printf fprintf vprintf vfprintf puts putchar fputs fputc perror '
          'sprintf vsprintf strcpy strcat atoi atol atof strtod strtof strtok gets getenv setenv putenv setlocale signal '
          'sigaction longjmp setjmp system popen execve execvp socket connect bind listen alloca').split()
ALLOCATING = 'malloc calloc realloc free posix_memalign aligned_alloc strdup'.split()
MAY_ALLOCATE = {'lib/base/mem.c'}  # the default hook

problems = []


def strip_comments(text):
    text = re.sub(r'/\*.*?\*/', lambda m: re.sub(r'[^\n]', ' ', m.group()), text, flags=re.S)
    text = re.sub(r'//[^\n]*', '', text)
    return re.sub(r'"(\\.|[^"\\\n])*"', '""', text)


def layer_of(path):
    for layer in sorted(LAYERS, key=len, reverse=True):
        if path.startswith(layer + '/'):
            return layer
    return None


def check_includes(root, path, text):
    layer = layer_of(path)
    for m in re.finditer(r'^\s*#\s*include\s*"([^"]+)"', text, re.M):
        target = (root / path).parent / m.group(1)
        name = str(target.resolve().relative_to(root.resolve())) if target.exists() else m.group(1)
        to = layer_of(name)
        if layer == 'examples':
            problems.append(f'{path}: includes "{m.group(1)}": examples use <glm45/glm45.h> only')
        elif to and to != layer and to not in LAYERS[layer]:
            problems.append(f'{path}: {layer} includes {name}')
        elif layer == 'kernels' and to == 'lib/base' and name not in KERNELS_MAY:
            problems.append(f'{path}: kernels include {name}')


def check_calls(path, text):
    for word in BANNED + ([] if path in MAY_ALLOCATE else ALLOCATING):
        for m in re.finditer(r'(?<![\w.>])' + word + r'\s*\(', text):
            problems.append(f'{path}:{text.count(chr(10), 0, m.start()) + 1}: calls {word}')


def check_tree(root):
    """Nothing outside the tree is referred to. Build folders and what git keeps are not the tree's."""
    outside = '../' + 'shared'
    for path in sorted(root.rglob('*')):
        name = str(path.relative_to(root))
        if any((root / part / 'meson-info').is_dir() or part == '.git' for part in name.split('/')[:1]):
            continue
        if not path.is_file() or path.stat().st_size > 2_000_000:
            continue
        if outside.encode() in path.read_bytes():
            problems.append(f'{name}: refers to {outside}')


def check_symbols(root):
    header = strip_comments((root / 'include/glm45/glm45.h').read_text())
    declared = set(re.findall(r'GLM_CALL (glm_\w+)\(', header))
    listed = set(re.findall(r'^\s+(glm_\w+);', (root / 'lib/glm45.map').read_text(), re.M))
    for name in sorted(declared ^ listed):
        problems.append(f'{name}: in only one of include/glm45/glm45.h and lib/glm45.map')


def main():
    root = pathlib.Path(sys.argv[1])
    n = 0
    for folder in ('lib', 'kernels', 'examples'):
        for file in sorted((root / folder).rglob('*.[ch]')):
            path = str(file.relative_to(root))
            raw = file.read_text()
            check_includes(root, path, re.sub(r'/\*.*?\*/', '', raw, flags=re.S))
            if folder != 'examples':
                check_calls(path, strip_comments(raw))
            n += 1
    check_tree(root)
    check_symbols(root)
    print('\n'.join(problems))
    print(f'{n} passed, {len(problems)} failed')
    return 1 if problems or n == 0 else 0


if __name__ == '__main__':
    sys.exit(main())
