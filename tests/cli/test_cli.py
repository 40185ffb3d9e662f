#!/usr/bin/env python3
"""The command-line program: what each command gives on tests/data, its exit statuses and error lines.

Usage: test_cli.py GLM45 UNZSTD DATA NANO [unittest arguments]. Python's standard library only.
"""
import array
import json
import os
import pathlib
import pty
import re
import select
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import time
import unittest

GLM45, UNZSTD = sys.argv[1], sys.argv[2]
DATA, NANO = pathlib.Path(sys.argv[3]), pathlib.Path(sys.argv[4])
ROOT = DATA.parent.parent
WORK = pathlib.Path(tempfile.mkdtemp(prefix='glm45-cli-'))
AIR = DATA / 'golden/air-bf16'
GGUF = DATA / 'golden/air256-gguf-Q4_0/Q4_0.gguf'
COMMANDS = ['chat', 'complete', 'infill', 'inspect', 'synth', 'bench', 'tokenize', 'render', 'parse', 'logits']


def unpack(name):
    """A file of tests/data, out of its .zst."""
    out = WORK / name
    if not out.exists():
        with open(DATA / (name + '.zst'), 'rb') as packed:
            out.write_bytes(subprocess.run([UNZSTD], stdin=packed, capture_output=True, check=True).stdout)
    return out


def tokenizer():
    return unpack('tokenizer.json')


def glm45(*args, stdin=b'', timeout=120):
    if isinstance(stdin, str):
        stdin = stdin.encode()
    p = subprocess.run([GLM45, *map(str, args)], input=stdin, capture_output=True, timeout=timeout, check=False)
    return p.returncode, p.stdout, p.stderr.decode()


def lines(text):
    return [json.loads(line) for line in text.split(b'\n') if line]


def jsonl(path):
    return lines(path.read_bytes())


def as_lines(values):
    return ''.join(json.dumps(v, ensure_ascii=False) + '\n' for v in values)


def safetensors(path):
    raw = pathlib.Path(path).read_bytes()
    size = struct.unpack('<Q', raw[:8])[0]
    out = {}
    for name, t in json.loads(raw[8:8 + size]).items():
        if name != '__metadata__':
            begin, end = t['data_offsets']
            values = array.array({'F32': 'f', 'I32': 'i', 'I64': 'q'}[t['dtype']])
            values.frombytes(raw[8 + size + begin:8 + size + end])
            out[name] = t['shape'], values
    return out


class Case(unittest.TestCase):
    def one_line(self, text, *parts):
        """An error is one line, says which command, and what to do."""
        self.assertEqual(text.count('\n'), 1, text)
        self.assertTrue(text.startswith('glm45'), text)
        for part in parts:
            self.assertIn(part, text)

    def fails(self, status, *args, stdin=b'', parts=()):
        rc, out, err = glm45(*args, stdin=stdin)
        self.assertEqual(rc, status, err)
        self.one_line(err, *parts)
        return out


class Program(Case):
    def test_help_and_version(self):
        for args in (['--help'], ['-h'], ['help']):
            rc, out, err = glm45(*args)
            self.assertEqual((rc, err), (0, ''))
            for command in COMMANDS:
                self.assertIn(f'\n  {command} '.encode(), out)
        for command in COMMANDS:
            for args in ([command, '--help'], ['help', command]):
                rc, out, err = glm45(*args)
                self.assertEqual((rc, err), (0, ''))
                self.assertIn(b'usage: glm45 ' + command.encode(), out)
        rc, out, err = glm45('--version')
        self.assertEqual((rc, err), (0, ''))
        self.assertRegex(out, rb'^glm45 \d+\.\d+\.\d+\n$')

    def test_wrong_use_is_status_2(self):
        rc, out, err = glm45()
        self.assertEqual((rc, out), (2, b''))
        self.assertIn('usage: glm45', err)
        self.fails(2, 'tokenise', parts=['tokenise', '--help'])
        self.fails(2, '--nonsense', parts=['--nonsense'])
        for command in COMMANDS:
            if command == 'synth':
                continue
            self.fails(2, command, parts=[f'glm45 {command}:', 'MODEL is missing', '--help'])
            self.fails(2, command, 'm', '--nonsense', parts=['--nonsense', 'no such option'])
            self.fails(2, command, 'm', 'n', parts=['one argument too many'])
        self.fails(2, 'logits', AIR, parts=['-o'])
        self.fails(2, 'logits', AIR, '-o', parts=['value'])
        self.fails(2, 'render', tokenizer(), '--template', '5', parts=['4.5', '4.7'])
        self.fails(2, 'bench', NANO, '--context', '1,x', parts=['--context', '1,x'])
        self.fails(2, 'bench', NANO, '--context', '99999999', parts=['positions'])
        self.fails(2, 'bench', NANO, '--kv', 'f64', parts=['bf16'])
        for size in ('2g', 'G', '2GB', '-1', '1.5G', '99999999T'):
            self.fails(2, 'bench', NANO, '--expert-cache', size, parts=['--expert-cache', size, '2G'])
        self.fails(1, 'bench', NANO, '--expert-cache', '1K', parts=['expert_cache_bytes', '1024 bytes', 'at least'])
        self.fails(2, 'bench', NANO, '--batch', '65', parts=['--batch', '64'])
        self.fails(2, 'chat', NANO, '--temperature', 'warm', parts=['--temperature', 'warm'])
        self.fails(2, 'chat', NANO, '--max-tokens', '-1', parts=['--max-tokens'])
        self.fails(2, 'chat', NANO, '--max-tokens=18446744073709551616', parts=['--max-tokens'])
        self.fails(2, 'tokenize', tokenizer(), '--special=yes', parts=['takes no value'])

    def test_failures_are_status_1(self):
        for command in ('tokenize', 'render', 'parse', 'inspect', 'bench'):
            self.fails(1, command, WORK / 'none\nsuch', parts=[f'glm45 {command}:', 'No such file'])
        self.fails(1, 'chat', WORK / 'none', '--say', 'x', parts=['No such file'])
        self.fails(1, 'chat', AIR, '--say', 'x', parts=['tokenizer'])
        self.fails(1, 'tokenize', AIR, stdin='{"text": "a"}\n', parts=['tokenizer'])
        broken = WORK / 'broken.gguf'
        broken.write_bytes(GGUF.read_bytes()[:5000])
        for command in ('inspect', 'tokenize', 'bench'):
            self.fails(1, command, broken, parts=['broken.gguf'])
        (WORK / 'empty').mkdir(exist_ok=True)
        self.fails(1, 'inspect', WORK / 'empty', parts=['empty'])

    def test_stdout_that_cannot_be_written(self):
        if not os.path.exists('/dev/full'):
            self.skipTest('no /dev/full')
        with open('/dev/full', 'wb') as full:
            for args in (['--help'], ['inspect', GGUF], ['tokenize', tokenizer()]):
                p = subprocess.run([GLM45, *map(str, args)], input=b'{"text": "a"}\n', stdout=full,
                                   stderr=subprocess.PIPE, check=False)
                self.assertEqual(p.returncode, 1, args)
                self.one_line(p.stderr.decode(), 'stdout')

    def test_reader_that_goes_away(self):
        reader, writer = os.pipe()
        os.close(reader)
        p = subprocess.Popen([GLM45, 'inspect', str(DATA / 'golden/glm45-sharded')], stdout=writer,
                             stderr=subprocess.PIPE)
        os.close(writer)
        self.assertEqual(p.wait(60), 1)
        self.assertEqual(p.stderr.read(), b'')
        p.stderr.close()

    def test_hosts_use_the_public_header_only(self):
        for name in ('chat', 'chat_show', 'complete', 'infill', 'textfile', 'bench', 'session_args', 'terminal', 'run_command', 'args', 'report', 'progress'):
            for include in re.findall(r'#include "([^"]+)"', (ROOT / f'tools/{name}.c').read_text()):
                self.assertNotIn('/', include, name)
                header = (ROOT / 'tools' / include).read_text()
                self.assertNotIn('../', ''.join(re.findall(r'#include .*', header)), f'{name}.c: {include}')


class Tokenize(Case):
    def test_golden(self):
        golden = jsonl(unpack('tok_golden.jsonl'))
        rc, out, err = glm45('tokenize', tokenizer(), '--special', stdin=as_lines({'text': g['text']} for g in golden))
        self.assertEqual((rc, err), (0, ''))
        self.assertEqual(lines(out), [g['ids'] for g in golden])
        rc, out, err = glm45('tokenize', tokenizer(), stdin=as_lines({'text': g['text']} for g in golden))
        self.assertEqual((rc, err), (0, ''))
        got = lines(out)
        self.assertEqual(len(got), len(golden))
        for ids, g in zip(got, golden):
            if g['cat'] != 'special':
                self.assertEqual(ids, g['ids'])

    def test_specials_are_text_unless_asked(self):
        line = '{"text": "a<|user|>"}\n'
        plain = lines(glm45('tokenize', tokenizer(), stdin=line)[1])[0]
        special = lines(glm45('tokenize', tokenizer(), '--special', stdin=line)[1])[0]
        self.assertEqual(special, [64, 151336])
        self.assertNotIn(151336, plain)

    def test_models_that_open(self):
        folder = WORK / 'bare'
        folder.mkdir(exist_ok=True)
        shutil.copy(NANO / 'tokenizer.json', folder / 'tokenizer.json')
        want = glm45('tokenize', NANO, stdin='{"text": "Hello, you."}\n')
        self.assertEqual(want[0], 0, want)
        self.assertGreater(len(lines(want[1])[0]), 1)
        for model in (folder, folder / 'tokenizer.json'):
            self.assertEqual(glm45('tokenize', model, stdin='{"text": "Hello, you."}\n'), want)
        rc, out, err = glm45('tokenize', GGUF, stdin='{"text": "Hi"}\n')
        self.assertEqual((rc, err), (0, ''))
        self.assertEqual(len(lines(out)[0]), 2)  # a vocabulary of bytes

    def test_line_ends(self):
        want = glm45('tokenize', NANO, stdin='{"text": "a"}\n')[1]
        for text in ('{"text": "a"}', '\n\n{"text": "a"}\n\n', '{"text": "a"}\r\n', ' \t\r\n{"text": "a"} \r\n'):
            self.assertEqual(glm45('tokenize', NANO, stdin=text), (0, want, ''))
        self.assertEqual(glm45('tokenize', NANO, stdin=''), (0, b'', ''))
        self.assertEqual(glm45('tokenize', NANO, stdin='{"text": ""}\n'), (0, b'[]\n', ''))

    def test_long_line(self):
        rc, out, err = glm45('tokenize', tokenizer(), stdin=json.dumps({'text': 'word ' * 400_000}) + '\n')
        self.assertEqual((rc, err), (0, ''))
        self.assertGreaterEqual(len(lines(out)[0]), 400_000)

    def test_bad_lines(self):
        good = '{"text": "a"}\n'
        want = glm45('tokenize', NANO, stdin=good)[1]
        for bad, *parts in (('{"text": 1}', '/text', 'string'), ('{}', '/text', 'missing'), ('[1]', 'object'),
                            ('{"text": "a"', 'byte'), ('{"text": "a"} x', 'byte'), (b'{"text": "a\xff"}', 'byte 11'),
                            (b'{"text": "a\x00"}', 'byte 11'), ('{"text": "\\ud800"}', 'byte'),
                            ('[' * 5000, 'deep')):
            bad = bad if isinstance(bad, bytes) else bad.encode()
            out = self.fails(1, 'tokenize', NANO, stdin=good.encode() + b'\n' + bad + b'\n' + good.encode(),
                             parts=['line 3', *parts])
            self.assertEqual(out, want)  # what came before it is answered, nothing behind it

    def test_lockstep(self):
        p = subprocess.Popen([GLM45, 'tokenize', str(NANO)], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        for text in ('one', 'two', 'three'):
            p.stdin.write(json.dumps({'text': text}).encode() + b'\n')
            p.stdin.flush()
            self.assertTrue(select.select([p.stdout], [], [], 60)[0], 'no answer to a line')
            self.assertTrue(json.loads(p.stdout.readline()))
        p.stdin.close()
        self.assertEqual(p.wait(60), 0)
        p.stdout.close()


class Render(Case):
    def test_golden(self):
        golden = jsonl(DATA / 'chat_golden.jsonl')
        n = 0
        for version in ('4.5', '4.7'):
            cases = [g for g in golden if g['template'] == 'glm-' + version]
            rc, out, err = glm45('render', tokenizer(), '--template', version, stdin=as_lines(cases))
            self.assertEqual((rc, err), (0, ''))
            got = lines(out)
            self.assertEqual([g['text'] for g in got], [c['rendered'] for c in cases])
            n += len(got)
            whole = lines(glm45('tokenize', tokenizer(), '--special', stdin=as_lines({'text': c['rendered']} for c in cases))[1])
            for g, c, ids in zip(got, cases, whole):
                content = json.dumps([c['messages'], c['tools']])
                if not re.search(r'<\|?/?\w+\|?>|/nothink|\[gMASK\]', content):
                    self.assertEqual(g['ids'], ids, c['name'])
        self.assertEqual(n, 150)

    def test_content_is_text(self):
        line = {'messages': [{'role': 'user', 'content': 'x<|assistant|>y'}]}
        out = lines(glm45('render', tokenizer(), stdin=as_lines([line]))[1])[0]
        self.assertEqual(out['text'], '[gMASK]<sop><|user|>\nx<|assistant|>y')
        self.assertNotIn(151337, out['ids'])
        self.assertEqual(out['ids'][:3], [151331, 151333, 151336])

    def test_template_of_the_checkpoint(self):
        line = as_lines([{'messages': [{'role': 'user', 'content': 'x'}], 'kwargs': {'add_generation_prompt': True}}])
        folder = WORK / 'seven'
        folder.mkdir(exist_ok=True)
        for name in ('tokenizer.json', 'config.json'):
            shutil.copy(NANO / name, folder / name)
        shutil.copy(DATA / 'glm-4.7.jinja', folder / 'chat_template.jinja')
        self.assertIn('<|assistant|><think>', lines(glm45('render', folder, stdin=line)[1])[0]['text'])
        self.assertNotIn('<think>', lines(glm45('render', folder, '--template', '4.5', stdin=line)[1])[0]['text'])

    def test_bad_lines(self):
        for bad, *parts in (({}, '/messages'), ({'messages': {}}, '/messages', 'array'), ({'messages': [1]}, '/messages/0'),
                            ({'messages': [], 'tools': 'x'}, '/tools'), ({'messages': [], 'kwargs': []}, '/kwargs'),
                            ({'messages': [{'role': 'assistant', 'tool_calls': [{'name': 'f', 'arguments': '['}]}]},
                             '/messages/0/tool_calls/0')):
            self.fails(1, 'render', NANO, stdin=as_lines([bad]), parts=['line 1', *parts])


class Parse(Case):
    def check(self, cases, tools, skip=()):
        n = 0
        for version in ('4.5', '4.7'):
            some = [c for c in cases if c['format'] == version and c['id'] not in skip]
            rc, out, err = glm45('parse', NANO, '--template', version, '--tools', tools, stdin=as_lines(some))
            self.assertEqual((rc, err), (0, ''))
            for got, want in zip(lines(out), some, strict=True):
                self.assertEqual(got, {k: want[k] for k in ('reasoning', 'content', 'tool_calls', 'finish')}, want['id'])
                n += 1
        return n

    def test_golden(self):
        cases = jsonl(DATA / 'stream_cases.jsonl')
        for c in cases:
            if c['id'] == '41-tool-choice-none':
                c['tool_choice'] = 'none'  # what the case is about
        self.assertEqual(self.check(cases, DATA / 'stream_tools.json'), 33)

    def test_without_tools(self):
        line = {'input': '<tool_call>f<arg_key>n</arg_key><arg_value>3</arg_value></tool_call>'}
        rc, out, err = glm45('parse', NANO, stdin=as_lines([line]))
        self.assertEqual((rc, err), (0, ''))
        self.assertEqual(lines(out)[0]['tool_calls'], [{'name': 'f', 'arguments': '{"n": 3}'}])

    def test_errors(self):
        self.fails(1, 'parse', NANO, stdin='{"prompt_ends": "x"}\n', parts=['line 1', '/input'])
        self.fails(1, 'parse', NANO, stdin='{"input": "x", "prompt_ends": 1}\n', parts=['line 1', '/prompt_ends'])
        self.fails(1, 'parse', NANO, '--tools', WORK / 'none.json', parts=['none.json'])
        bad = WORK / 'bad-tools.json'
        bad.write_text('[{"type": "function", "function": {}}]')
        self.fails(1, 'parse', NANO, '--tools', bad, parts=['bad-tools.json', '/0'])


class Logits(Case):
    def run_one(self, model, want, *args):
        out = WORK / 'out.safetensors'
        rc, text, err = glm45('logits', model, '-o', out, '--threads', '2', *args,
                              stdin=json.dumps(list(want['ids'][1])) + '\n')
        self.assertEqual((rc, text, err), (0, b'', ''))
        return safetensors(out)

    def near(self, got, want, bound):
        self.assertEqual(got[0], want[0])
        self.assertLessEqual(max(abs(a - b) for a, b in zip(got[1], want[1], strict=True)), bound)

    def test_golden(self):
        for folder in ('air-bf16', 'glm45-sharded', 'group-mixed', 'air-int4-awq-asym'):
            path = DATA / 'golden' / folder
            want = safetensors(path / 'expect.safetensors')
            extra = ['--mtp'] if 'mtp_logits' in want else []
            got = self.run_one(path, want, '--float', '--hidden', *extra)
            self.assertEqual(set(got), {'logits', 'hidden'} | ({'mtp_logits'} if extra else set()))
            for name in got:
                self.near(got[name], want[name], 2e-4)

    def test_activations(self):
        want = safetensors(GGUF.parent / 'expect.safetensors')
        exact, fast = self.run_one(GGUF, want, '--float'), self.run_one(GGUF, want)
        self.assertEqual(set(fast), {'logits'})
        self.near(exact['logits'], want['logits'], 2e-4)
        self.near(fast['logits'], want['logits'], 1.0)
        self.assertNotEqual(exact['logits'], fast['logits'])  # int8 was really used

    def test_errors(self):
        out = WORK / 'none.safetensors'
        for line, *parts in (('', 'no line'), ('[]\n', 'line 1'), ('[1, -1]\n', '/1'), ('[1, 2.5]\n', '/1'), ('[999999]\n', '/0'),
                             ('[1, 2\n', 'line 1'), ('{"text": "a"}\n', 'array'), ('["a"]\n', '/0')):
            self.fails(1, 'logits', AIR, '-o', out, stdin=line, parts=parts)
        self.fails(1, 'logits', GGUF, '-o', out, '--mtp', stdin='[1, 2]\n', parts=['--mtp'])
        self.fails(1, 'logits', AIR, '-o', WORK / 'no/such/x', stdin='[1, 2]\n', parts=['no'])
        self.assertFalse(out.exists())
        self.assertFalse(list(WORK.glob('none.safetensors*')))

    def test_one_token(self):
        out = WORK / 'one.safetensors'
        rc, _, err = glm45('logits', AIR, '-o', out, '--mtp', '--hidden', stdin='[1]\n')
        self.assertEqual((rc, err), (0, ''))
        got = safetensors(out)
        self.assertEqual(got['logits'][0][0], 1)
        self.assertEqual(got['mtp_logits'][0], [0, got['logits'][0][1]])


class Inspect(Case):
    def test_sums(self):
        """Every byte of a checkpoint without an MTP layer has one use."""
        for name in ('BF16', 'Q4_K_M', 'Q4_0'):
            rc, out, err = glm45('inspect', DATA / f'golden/air256-gguf-{name}/{name}.gguf', '--json')
            self.assertEqual((rc, err), (0, ''))
            x = json.loads(out)
            self.assertEqual(x['format'], 'gguf')
            self.assertEqual(sum(t['bytes'] for t in x['tensors']), sum(t['bytes'] for t in x['types']))
            self.assertEqual(sum(t['tensors'] for t in x['files']), len(x['tensors']))
            embed = next(t['bytes'] for t in x['tensors'] if t['name'] == 'token_embd.weight')
            experts = x['expert_bytes_per_token'] * x['model']['n_expert'] // x['model']['n_expert_used']
            dense = x['bytes_per_token'] - x['expert_bytes_per_token'] - embed // x['model']['n_vocab']
            self.assertEqual(dense + experts + embed, sum(t['bytes'] for t in x['types']))
            ends = sorted((t['offset'], t['offset'] + t['bytes']) for t in x['tensors'])
            for a, b in zip(ends, ends[1:]):
                self.assertLessEqual(a[1], b[0])

    def test_table(self):
        rc, out, err = glm45('inspect', DATA / 'golden/air-fp8')
        self.assertEqual((rc, err), (0, ''))
        for part in (b'F8_E4M3', b'model.layers.0.self_attn.q_proj.weight', b'experts', b'memory', b'none: only the token level'):
            self.assertIn(part, out)
        self.assertNotIn(b'q_proj', glm45('inspect', DATA / 'golden/air-fp8', '--no-tensors')[1])

    def test_memory(self):
        x = json.loads(glm45('inspect', NANO, '--json', '--context', '64,128')[1])
        self.assertEqual([m['context'] for m in x['memory']], [64, 128])
        self.assertEqual(x['memory'][1]['kv'], 2 * x['memory'][0]['kv'])
        self.assertEqual(x['template'], '4.5')
        self.assertTrue(x['template_known'])
        self.fails(1, 'inspect', NANO, '--context', '999999', parts=['--context'])

    def test_tokenizer_alone(self):
        x = json.loads(glm45('inspect', tokenizer(), '--json')[1])
        self.assertEqual((x['format'], x['tokenizer']['added'], x['tokenizer']['family_specials_missing']), ('tokenizer', 36, 0))
        self.assertNotIn('model', x)


class Bench(Case):
    def test_json(self):
        rc, out, err = glm45('bench', GGUF, '--context', '0,64', '--gen', '4', '--repeat', '2', '--prompt', '32', '--threads', '2',
                             '--json')
        self.assertEqual((rc, err), (0, ''))
        x = json.loads(out)
        self.assertGreater(x['prefill']['tokens_per_s'], 0)
        self.assertEqual([d['context'] for d in x['decode']], [0, 64])
        for d in x['decode']:
            self.assertGreater(d['tokens_per_s'], 0)
            self.assertAlmostEqual(d['fraction'] * d['read_bytes_per_s'] / (d['tokens_per_s'] * d['bytes_per_token']), 1, places=2)
        kv = (x['decode'][1]['bytes_per_token'] - x['decode'][0]['bytes_per_token']) / 64
        self.assertEqual(kv, 2 * 2 * 1 * 32 * 4)  # keys and values, layers, KV heads, head width, float32
        inspected = json.loads(glm45('inspect', GGUF, '--json')[1])
        self.assertEqual(x['decode'][0]['bytes_per_token'], inspected['bytes_per_token'] + 4 * kv)

    def test_batch(self):
        one, three = (json.loads(glm45('bench', GGUF, '--context', '16', '--gen', '4', '--repeat', '1', '--prompt', '8', '--json',
                                       '--batch', n)[1])['decode'][0] for n in ('1', '3'))
        self.assertGreater(three['tokens_per_s'], 0)
        self.assertLess(three['bytes_per_token'], one['bytes_per_token'])
        self.assertGreater(three['bytes_per_token'], one['bytes_per_token'] / 3)

    def test_table(self):
        rc, out, err = glm45('bench', AIR, '--context', '8', '--gen', '2', '--repeat', '1', '--prompt', '8')
        self.assertEqual((rc, err), (0, ''))
        self.assertIn(b'decode tok/s', out)

    def test_steps(self):
        rc, out, err = glm45('bench', AIR, '--step-budget', '1,16', '--gen', '3', '--prompt', '24', '--json')
        self.assertEqual((rc, err), (0, ''))
        steps = json.loads(out)['steps']
        self.assertEqual([s['budget_ms'] for s in steps], [1, 16])
        for s in steps:
            self.assertGreaterEqual(s['n'], 4)  # one for the prompt and one for each token, if none is cut
            self.assertLessEqual(s['late_ms_p50'], s['late_ms_p99'])
            self.assertLessEqual(s['late_ms_p99'], s['late_ms_max'])
        self.fails(2, 'bench', AIR, '--step-budget', '0', parts=['--step-budget'])


class Complete(Case):
    def test_repeats_and_limits(self):
        args = ['complete', NANO, '--prompt', 'What is 2 + 3?', '--max-tokens', '12', '--seed', '7', '--ignore-end']
        first = glm45(*args)
        self.assertEqual((first[0], first[2]), (0, ''))
        self.assertTrue(first[1])
        first[1].decode()  # whole characters
        self.assertEqual(glm45(*args), first)
        self.assertEqual(glm45('complete', NANO, '--max-tokens', '12', '--seed', '7', '--ignore-end', stdin='What is 2 + 3?'), first)
        rc, out, _ = glm45(*args, '--echo')
        self.assertEqual((rc, out), (0, b'What is 2 + 3?' + first[1]))

    def test_greedy_is_the_logits_best(self):
        prompt = 'What is 2 + 3?'
        ids = lines(glm45('tokenize', NANO, stdin=as_lines([{'text': prompt}]))[1])[0]
        out = WORK / 'greedy.safetensors'
        self.assertEqual(glm45('logits', NANO, '-o', out, stdin=json.dumps(ids) + '\n')[0], 0)
        (_, n_vocab), values = safetensors(out)['logits']
        last = values[-n_vocab:]
        best = max(range(n_vocab), key=lambda i: last[i])
        rc, text, _ = glm45('complete', NANO, '--prompt', prompt, '--temperature', '0', '--max-tokens', '1', '--ignore-end')
        self.assertEqual(rc, 0)
        self.assertIn(best, lines(glm45('tokenize', NANO, '--special', stdin=as_lines([{'text': text.decode()}]))[1])[0])

    def test_errors(self):
        self.fails(1, 'complete', NANO, stdin='', parts=['empty'])
        self.fails(1, 'complete', NANO, stdin=b'a\xff', parts=['byte 1'])
        self.fails(1, 'complete', AIR, '--prompt', 'x', parts=['tokenizer'])
        self.fails(1, 'complete', NANO, '--prompt', 'many words are here', '--context', '2', parts=['context'])


TOOL = '''[{"type": "function", "command": %s,
"function": {"name": "%s", "description": "d", "parameters": {"type": "object", "properties": {"city": {"type": "string"}}}}}]'''


class Chat(Case):
    def test_say(self):
        args = ['chat', NANO, '--say', 'Hi', '--say', 'Hi', '--temperature', '0', '--max-tokens', '200']
        rc, out, err = glm45(*args)
        self.assertEqual((rc, err), (0, ''))
        self.assertTrue(out.endswith(b'\n'))
        self.assertNotIn(b'\033', out)
        self.assertNotIn(b'<think>', out)
        self.assertEqual(glm45('chat', NANO, '--temperature', '0', '--max-tokens', '200', stdin='Hi\n\nHi\n'), (0, out, ''))
        self.assertEqual(glm45('chat', NANO, '--temperature', '0', '--max-tokens', '200', stdin='Hi\nHi\n/quit\nHi\n'), (0, out, ''))

    def test_commands(self):
        rc, out, err = glm45('chat', NANO, '--temperature', '0', '--max-tokens', '20', '--show-thinking',
                             stdin='/think off\nHi\n/reset\nHi\n')
        self.assertEqual(rc, 0, err)
        once = glm45('chat', NANO, '--temperature', '0', '--max-tokens', '20', '--no-think', '--say', 'Hi')[1]
        self.assertEqual(out, once * 2)  # /reset forgets
        self.fails(1, 'chat', NANO, stdin='/nonsense\nHi\n', parts=['/nonsense'])
        self.fails(1, 'chat', NANO, stdin=b'a\xff\n', parts=['byte 1'])

    def test_length(self):
        rc, out, err = glm45('chat', NANO, '--say', 'Hi', '--max-tokens', '1', '--no-think')
        self.assertEqual(rc, 0)
        self.assertIn('--max-tokens', err)
        self.fails(1, 'chat', NANO, '--context', '16', '--say', 'many words ' * 40, parts=['context'])

    def test_tool_files(self):
        path = WORK / 'tools.json'
        for text, *parts in (('{}', 'array'), ('[{"function": {"name": "f"}}]', '/0/command'), ('[{"command": ["x"]}]', '/0/name'),
                             (TOOL % ('[1]', 'f'), '/0/command'), (TOOL % ('[]', 'f'), '/0/command'), ('[', 'tools.json')):
            path.write_text(text)
            self.fails(1, 'chat', NANO, '--tools', path, '--say', 'x', parts=['tools.json', *parts])

    def test_tool(self):
        """The small model is trained to call a tool that the question names."""
        path = WORK / 'weather.json'
        script = "import json, sys; print(json.load(sys.stdin)['city'] + ' has 17 degrees')"
        path.write_text(TOOL % (json.dumps([sys.executable, '-c', script]), 'get_weather'))
        rc, out, err = glm45('chat', NANO, '--tools', path, '--temperature', '0', '--say', 'What is the weather in Oslo?')
        self.assertEqual(rc, 0, err)
        self.assertIn('get_weather({"city": "Oslo"})', err)
        self.assertIn('result: Oslo has 17 degrees', err)
        self.assertNotIn(b'get_weather', out)
        self.assertTrue(out.strip())


class Terminal(Case):
    """Chat with a person: a pseudo-terminal on both sides."""

    model, more, seen = NANO, ['--max-tokens', '3000'], b''

    def setUp(self):
        try:
            self.pid, self.fd = pty.fork()
        except OSError as e:
            self.skipTest(f'no terminals here: {e}')
        if self.pid == 0:
            os.environ['TERM'] = 'xterm'
            os.environ.pop('NO_COLOR', None)
            os.execv(GLM45, [GLM45, 'chat', str(self.model), '--temperature', '0', *self.more])

    def tearDown(self):
        os.close(self.fd)
        if self.pid:
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)

    def expect(self, part, seconds=60):
        end = time.monotonic() + seconds
        while part not in self.seen:
            ready = select.select([self.fd], [], [], max(0, end - time.monotonic()))[0]
            self.assertTrue(ready, f'{part} did not come: {self.seen}')
            try:
                self.seen += os.read(self.fd, 65536)
            except OSError:
                self.fail(f'{part} did not come: {self.seen}')
        self.seen = self.seen[self.seen.index(part) + len(part):]

    def status(self):
        end = time.monotonic() + 60
        while time.monotonic() < end:
            if select.select([self.fd], [], [], 0.05)[0]:
                try:
                    os.read(self.fd, 65536)
                except OSError:
                    pass
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.pid = 0
                return os.waitstatus_to_exitcode(status)
        return None

    def test_conversation(self):
        self.expect(b'> ')
        os.write(self.fd, b'What is 12 + 7?\n')
        self.expect(b'\033[2m')  # the thought is dim
        self.expect(b'tokens')  # the line behind an answer
        self.expect(b'> ')
        os.write(self.fd, b'/nonsense\n')  # an error does not end it
        self.expect(b'/help')
        self.expect(b'> ')
        os.write(self.fd, b'/quit\n')
        self.assertEqual(self.status(), 0)

    def test_interrupt_at_the_prompt(self):
        self.expect(b'> ')
        os.write(self.fd, b'\x03')
        self.expect(b'Ctrl-C again')
        self.expect(b'> ')
        os.write(self.fd, b'Hi\n')
        self.expect(b'tokens')
        self.expect(b'> ')
        os.write(self.fd, b'\x03')
        self.expect(b'Ctrl-C again')
        self.expect(b'> ')
        os.write(self.fd, b'\x03')
        self.assertEqual(self.status(), 0)

    def test_end_of_input(self):
        self.expect(b'> ')
        os.write(self.fd, b'\x04')
        self.assertEqual(self.status(), 0)


class Interrupt(Terminal):
    """A model that cannot come to an end by itself: random weights, and a vocabulary without the tokens that end an
    answer. Its answers take minutes."""

    more = ['--max-tokens', '60000']

    @classmethod
    def setUpClass(cls):
        cls.model = WORK / 'endless.gguf'
        vocabulary = json.loads((NANO / 'tokenizer.json').read_text(encoding='utf-8'))
        vocabulary['added_tokens'] = [t for t in vocabulary['added_tokens'] if t['content'] in ('[gMASK]', '<sop>')]
        endless = WORK / 'endless.json'
        endless.write_text(json.dumps(vocabulary), encoding='utf-8')
        rc, _, err = glm45('synth', '--shape', 'nano', '--vocab', '2048', '--layers', '12', '--context', '65536', '--tokenizer',
                           endless, '--quiet', '-o', cls.model)
        assert rc == 0, err

    def test_conversation(self):
        for _ in range(2):  # the answer ends, the program and the conversation do not
            self.expect(b'> ')
            os.write(self.fd, b'Hi\n')
            self.expect(b'\r\n')  # the echo; then the answer begins
            while not self.seen:
                self.assertTrue(select.select([self.fd], [], [], 60)[0], 'no answer begins')
                self.seen += os.read(self.fd, 65536)
            os.write(self.fd, b'\x03')
            self.expect(b'[stopped]')
        self.expect(b'> ')
        os.write(self.fd, b'/quit\n')
        self.assertEqual(self.status(), 0)

    test_interrupt_at_the_prompt = test_end_of_input = None


def main():
    try:
        program = unittest.main(argv=sys.argv[:1] + sys.argv[5:], exit=False)
        return 0 if program.result.wasSuccessful() and program.result.testsRun else 1
    finally:
        shutil.rmtree(WORK, ignore_errors=True)


if __name__ == '__main__':
    sys.exit(main())
