"""A stand-in for the program `basin`: it writes down how it was called, and answers as it was told.

StandIn(folder) makes it and sets BASIN_PROGRAM. `answer('show', ...)` says what a call whose arguments begin so prints;
a call that nothing was said about fails the test, for it ends with 9.
"""

import json
import os
import sys

PROGRAM = '''#!{python}
import json, os, sys
here = os.path.dirname(os.path.abspath(__file__))
words = sys.argv[1:]
call = {{'words': words, 'runs': os.environ.get('BASIN_RUNS')}}
if words[0] == 'submit':
    with open(words[1]) as file:
        call['job'] = json.load(file)
with open(os.path.join(here, 'calls.jsonl'), 'a') as file:
    file.write(json.dumps(call) + '\\n')
with open(os.path.join(here, 'answers.json')) as file:
    answers = json.load(file)
for one in answers:
    if words[:len(one['words'])] == one['words']:
        # Several answers are given one after the other, the last one for ever.
        told = one['answers'].pop(0) if len(one['answers']) > 1 else one['answers'][0]
        with open(os.path.join(here, 'answers.json'), 'w') as file:
            json.dump(answers, file)
        sys.stdout.write(told['out'])
        sys.stderr.write(told['err'].replace('JOB', words[1] if len(words) > 1 else ''))
        sys.exit(told['code'])
sys.exit(9)
'''


class StandIn:
    def __init__(self, folder):
        self.folder = folder
        self.answers = []
        self._write('answers.json', '[]')
        path = self._write('basin', PROGRAM.format(python=sys.executable))
        os.chmod(path, 0o755)
        os.environ['BASIN_PROGRAM'] = path

    def _write(self, name, text):
        path = os.path.join(self.folder, name)
        with open(path, 'w', encoding='utf-8') as file:
            file.write(text)
        return path

    def answer(self, words, *answers, code=0, err=''):
        """Each of `answers` is JSON, or text as it is; none: nothing is printed. JOB in `err` is the job file's path."""
        told = [{'out': one if isinstance(one, str) else json.dumps(one), 'err': err, 'code': code}
                for one in answers or ('',)]
        self.answers.insert(0, {'words': words.split(), 'answers': told})
        self._write('answers.json', json.dumps(self.answers))

    def calls(self):
        """[{'words', 'runs', 'job'?}], oldest first."""
        try:
            with open(os.path.join(self.folder, 'calls.jsonl'), encoding='utf-8') as file:
                return [json.loads(line) for line in file]
        except FileNotFoundError:
            return []

    def words(self):
        return [' '.join(call['words']) for call in self.calls()]
