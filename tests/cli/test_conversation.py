#!/usr/bin/env python3
"""The command-line program's turns: budgets and limits of chat, going back, saving and loading, and infill.

Usage: as test_cli.py.
"""
import os
import shutil
import sys
import unittest

import test_cli
from test_cli import NANO, WORK, Case, glm45

SUM = 'What is 123 + 456?'
LESS = 'def less(i, acroup):\n    return<cursor>\n'


def chat(*args, stdin='', say=()):
    said = [part for text in say for part in ('--say', text)]
    return glm45('chat', NANO, '--temperature', '0', *args, *said, stdin=stdin)


class Turns(Case):
    def test_budget(self):
        whole, cut = chat('--show-thinking', say=[SUM]), chat('--show-thinking', '--think-budget', '5', say=[SUM])
        self.assertEqual((whole[0], whole[2], cut[0]), (0, '', 0))
        self.assertIn('closed after 5 tokens', cut[2])
        self.assertNotEqual(cut[1], whole[1])
        self.assertEqual(chat('--think-budget', '5', say=[SUM])[2], '')  # a thought that nobody sees
        self.assertEqual(chat('--show-thinking', '--think-budget', '1000', say=[SUM]), whole)
        self.assertEqual(chat('--show-thinking', stdin=f'/think 5\n{SUM}\n')[1:], cut[1:])
        self.assertIn(b' Enough.\n', chat('--show-thinking', '--think-budget', '5', '--think-close', ' Enough.', say=[SUM])[1])

    def test_speculation(self):
        off, on = chat('--speculation', 'off', say=[SUM]), chat('--speculation', 'on', say=[SUM])
        self.assertEqual((off, off[0]), (on, 0))

    def test_keep_thoughts(self):
        self.fails(1, 'chat', NANO, '--keep-thoughts', '--say', 'x', parts=['keep_thoughts'])
        self.assertEqual(chat('--keep-thoughts', '--template', '4.7', '--max-tokens', '9', say=['Hi', 'Hi'])[0], 0)

    def test_stop(self):
        whole = chat('--no-think', say=['Hello!'])[1]
        middle = whole[3:6].decode()
        rc, out, err = chat('--no-think', '--stop', 'nowhere', '--stop', middle, say=['Hello!'])
        self.assertEqual((rc, out, err), (0, whole[:3] + b'\n', ''))

    def test_time(self):
        rc, out, err = chat('--max-seconds', '0', say=[SUM])
        self.assertEqual(rc, 0)
        self.assertIn('--max-seconds', err)

    def test_overflow(self):
        texts = [f'What is {i} + 1?' for i in range(6)]
        args = ['--no-think', '--context', '160', '--max-tokens', '40']
        rc, out, err = chat(*args, '--overflow', 'drop', say=texts)
        self.assertEqual((rc, err), (0, ''))
        self.assertEqual(out.count(b'\n'), 6)
        rc, out, err = chat(*args, say=texts)
        self.assertEqual(rc, 1)
        self.one_line(err, 'context')

    def test_loop(self):
        rc, out, err = chat('--no-think', '--repeat-penalty', '0.01', '--max-tokens', '900', say=['word word word word word word word word word word'])
        self.assertEqual(rc, 0)
        self.assertIn('repeats itself', err)

    def test_wrong_use(self):
        for args, *parts in ((['--think-budget', '5', '--no-think'], '--think-budget'), (['--think-budget', 'x'], '--think-budget'),
                             (['--overflow', 'wrap'], 'wrap', 'drop'), (['--speculation', 'x'], '--speculation'), (['--max-seconds', '-1'], '--max-seconds'),
                             (['--system', 'x', '--load', 'y'], '--load')):
            self.fails(2, 'chat', NANO, *args, parts=parts)
        for line, *parts in (('/think much', 'number of tokens'), ('/think ', 'number of tokens'), ('/end', 'thought'),
                             ('/undo', 'no message'), ('/load ' + str(WORK / 'none'), 'none'),
                             ('/save ' + str(WORK / 'no/such'), 'no/such')):
            self.fails(1, 'chat', NANO, stdin=line + '\n', parts=parts)


class GoingBack(Case):
    def test_undo(self):
        once = chat(stdin=f'Hello!\n{SUM}\n')[1]
        rc, out, err = chat(stdin=f'Hello!\nWhat is 1 + 1?\n/undo\n{SUM}\n')
        self.assertEqual((rc, err), (0, ''))
        hello = chat(stdin='Hello!\n')[1]
        self.assertEqual(out.count(b'\n'), once.count(b'\n') + 1)
        self.assertTrue(out.startswith(hello) and out.endswith(once[len(hello):]))
        self.fails(1, 'chat', NANO, '--temperature', '0', stdin='Hello!\n/undo\n/undo\n', parts=['/undo'])

    def test_save_and_load(self):
        path = WORK / 'chat.snapshot'
        both = chat(stdin=f'Hello!\n{SUM}\n')
        first = chat('--save', path, stdin='Hello!\n')
        second = chat('--load', path, stdin=f'{SUM}\n')
        self.assertEqual((first[0], second[0], second[2]), (0, 0, ''))
        self.assertEqual(first[1] + second[1], both[1])
        again = chat(stdin=f'Hello!\n/save {path}\nHello!\n/load {path}\n{SUM}\n')
        self.assertEqual((again[0], again[2]), (0, ''))
        self.assertTrue(again[1].endswith(second[1]))
        self.assertFalse(list(WORK.glob('chat.snapshot?*')))

    def test_bad_snapshots(self):
        path = WORK / 'bad.snapshot'
        chat('--save', path, say=['Hello!'])
        data = path.read_bytes()
        for bad in (data[:-1], data[:100], b'', data[:len(data) // 2] + b'x' + data[len(data) // 2 + 1:]):
            path.write_bytes(bad)
            self.fails(1, 'chat', NANO, '--load', path, '--say', 'x', parts=['bad.snapshot'])
        self.fails(1, 'chat', NANO, '--load', WORK / 'none', '--say', 'x', parts=['none'])


class Infill(Case):
    def infill(self, *args, stdin=''):
        return glm45('infill', NANO, '--temperature', '0', *args, stdin=stdin)

    def test_forms(self):
        """The same place, said in three ways."""
        (WORK / 'less.py').write_text(LESS)
        (WORK / 'other.py').write_text(LESS.replace('<cursor>', '@@'))
        before, behind = LESS.split('<cursor>')
        (WORK / 'prefix').write_text(before)
        (WORK / 'suffix').write_text(behind)
        want = (0, b' i < acroup', '')
        self.assertEqual(self.infill(stdin=LESS), want)
        self.assertEqual(self.infill('--file', WORK / 'less.py'), want)
        self.assertEqual(self.infill('--file', WORK / 'other.py', '--marker', '@@'), want)
        self.assertEqual(self.infill('--prefix', WORK / 'prefix', '--suffix', WORK / 'suffix'), want)
        self.assertEqual(self.infill('--whole', stdin=LESS), (0, LESS.replace('<cursor>', ' i < acroup').encode(), ''))
        self.assertEqual(self.infill('--prefix', WORK / 'prefix')[0], 0)

    def test_context(self):
        (WORK / 'b.py').write_text('def f(x):\n    return x\n')
        rc, out, err = self.infill('--context-file', WORK / 'b.py', stdin=LESS)
        self.assertEqual((rc, err), (0, ''))
        self.assertTrue(out)

    def test_rules(self):
        self.assertEqual(self.infill('--stop', ' <', stdin=LESS), (0, b' i', ''))
        rc, out, err = self.infill('--max-tokens', '1', stdin=LESS)
        self.assertEqual(rc, 0)
        self.one_line(err, '--max-tokens')
        rc, out, err = self.infill('--stop-lines', '1', '--stop-dedent', stdin='def f(a):\n<cursor>')
        self.assertEqual(rc, 0)
        self.assertLessEqual(out.count(b'\n'), 1)

    def test_errors(self):
        for args, *parts in ((['--prefix', 'a', '--file', 'b'], '--file'), (['--suffix', 'a'], '--prefix'), (['--marker', ''], '--marker'),
                             (['--stop-lines', 'x'], '--stop-lines')):
            self.fails(2, 'infill', NANO, *args, stdin=LESS, parts=parts)
        self.fails(1, 'infill', NANO, stdin='x\n', parts=['<cursor>', '0 times'])
        self.fails(1, 'infill', NANO, stdin='<cursor>x<cursor>\n', parts=['<cursor>', '2 times'])
        self.fails(1, 'infill', NANO, '--file', WORK / 'none', parts=['none', 'No such file'])
        self.fails(1, 'infill', NANO, '--context-file', WORK / 'none', stdin=LESS, parts=['none', 'No such file'])
        self.fails(1, 'infill', NANO, stdin=b'\xff<cursor>', parts=['byte 0'])


class Keyboard(test_cli.Interrupt):
    """What a person types while a model of random weights answers on and on."""

    def test_end(self):
        self.expect(b'> ')
        os.write(self.fd, b'Hi\n')
        self.expect(b'\r\n')
        os.write(self.fd, b'/end\n')
        self.expect(b'thought')  # "thought closed" or, where there is none by then, a line that says so
        os.write(self.fd, b'\x03')
        self.expect(b'> ')
        os.write(self.fd, b'/quit\n')
        self.assertEqual(self.status(), 0)

    test_conversation = None


class Ahead(test_cli.Terminal):
    def test_lines_ahead(self):
        self.expect(b'> ')
        os.write(self.fd, b'Hello!\n/quit\n')  # the second is read during the answer or behind it
        self.assertEqual(self.status(), 0)

    test_conversation = test_interrupt_at_the_prompt = test_end_of_input = None


def main():
    try:
        program = unittest.main(argv=sys.argv[:1] + sys.argv[5:], exit=False)
        return 0 if program.result.wasSuccessful() and program.result.testsRun else 1
    finally:
        shutil.rmtree(WORK, ignore_errors=True)


if __name__ == '__main__':
    sys.exit(main())
