"""A run's page in a headless Chromium: what a user sees of it, whatever the run's names and values hold."""

import html
import re
import shutil
import subprocess
import tempfile
import unittest

from written_runs import DEADLINE_S, RunsTest, needs, metric, record, text_of

CHROMIUM = shutil.which('chromium')
HOSTILE = '</script><script>document.title="taken"</script><img src=x onerror=\'document.title="taken"\'>"&\u20ac'


def dom(page):
    """The document as HTML after its scripts have run."""
    with tempfile.TemporaryDirectory() as profile:
        # An open page would be looked at forever: the time limit is of the page's own clock.
        done = subprocess.run([CHROMIUM, '--headless', '--no-sandbox', '--disable-gpu', f'--user-data-dir={profile}',
                               '--virtual-time-budget=2000', f'--timeout={1000 * DEADLINE_S:.0f}', '--dump-dom', page.as_uri()],
                              capture_output=True, timeout=2 * DEADLINE_S)
    return done.stdout.decode()


@needs.needs(CHROMIUM, 'there is no chromium')
class PageTest(RunsTest):
    def assertRegex(self, text, pattern, message=None):
        self.assertTrue(re.search(pattern, text), message or f'{pattern} is not in the page')

    def assertIn(self, part, text, message=None):
        self.assertTrue(part in text, message or f'{part} is not in the page')

    def test_a_run_is_shown_with_charts_tasks_logs_and_outputs(self):
        supervisor = self.supervise('20251128-120000-aaaaaa')
        run = record('20251128-120000-aaaaaa', git={'azureml.git.branch': 'topic/x'})
        supervisor.do(job={'experiment': 'exp', 'entry_script': 'basin:mlp'})
        supervisor.do(record={**run, 'state': 'Preparing'}, now=1764370000)
        supervisor.do(record=run, now=1764370002)
        for step in range(100):
            supervisor.piece('worker/0', metric('loss', 1 / (step + 1), step), 'metrics')
            supervisor.piece('worker/1', metric('loss', 2 / (step + 1), step) + metric('rate', 5), 'metrics')
        supervisor.piece('worker/1', 'a line of worker 1\n10%\r50%\r100%\n')
        supervisor.piece('worker/0', 'weights', 'output', path='models/my model#1.bin', last=True, chief=True)
        supervisor.do(time=1764370060)
        supervisor.settle()
        page = dom(supervisor.folder / 'index.html')
        self.assertIn('http-equiv="refresh"', page)
        self.assertIn('data-charts="2"', page, 'both charts were drawn by the script')
        self.assertRegex(page, r'id="state"[^>]*>Running<')
        self.assertIn('topic/x', page)

        run['tasks'][2]['signal'] = 9
        supervisor.do(record={**run, 'state': 'Failed', 'reason': 'worker 1 was ended by SIGKILL', 'ended': text_of(1764370090),
                              'exit_code': 1}, now=1764370090)
        supervisor.end()
        page = dom(supervisor.folder / 'index.html')
        self.assertNotIn('http-equiv="refresh"', page, 'a run that is over is not looked at again')
        self.assertRegex(page, r'id="state"[^>]*>Failed<')
        self.assertRegex(page, r'<td>node-b</td><td>10.0.0.2:2222</td><td[^>]*>102</td><td class="ended-badly">was ended by SIGKILL</td>')
        self.assertRegex(page, r'<details[^>]*data-key="logs/worker-1.txt"[^>]* open')
        self.assertIn('a line of worker 1\n100%', page)
        link = re.search(r'href="([^"]*my%20model[^"]*)"', page).group(1)
        self.assertEqual(link, './outputs/models/my%20model%231.bin')
        for state in ('Preparing', 'Running', 'Failed'):
            self.assertRegex(page, rf'<li[^>]*><b>{state}</b><span><time')
        self.assertRegex(page, r'<b>Preparing</b>.*<span>2s</span>')
        # It stands alone: a copy elsewhere works, without the runs' folder.
        copy = self.base / 'copy'
        shutil.copytree(supervisor.folder, copy)
        shutil.rmtree(self.runs)
        self.assertIn('data-charts="2"', dom(copy / 'index.html'))
        self.assertIsNone(re.search(r'(src|href)="(https?:)?//', page), 'nothing comes from a network')

    def test_hostile_names_and_values_are_text(self):
        supervisor = self.supervise('20251128-120000-bbbbbb')
        run = record('20251128-120000-bbbbbb', reason=HOSTILE, target=HOSTILE, git={'azureml.git.branch': HOSTILE})
        run['tasks'][0]['host'] = HOSTILE
        supervisor.do(job={'experiment': HOSTILE})
        supervisor.do(record=run, now=1764370000)
        supervisor.piece('worker/0', metric(HOSTILE, 1, 1) + metric('nan', float('nan'), 1), 'metrics')
        supervisor.piece('worker/0', HOSTILE + '\n\x1b[31mred\x00\n')
        supervisor.piece('worker/1', 'x' + HOSTILE + '\n')
        supervisor.piece('worker/0', 'x', 'output', path=HOSTILE.replace('/', '|'), last=True, chief=True)
        supervisor.piece('worker/0', 'x\n', 'script_log', path=HOSTILE.replace('/', '|'), chief=True)
        supervisor.do(record={**run, 'state': 'Completed', 'ended': text_of(1764370001)}, now=1764370001)
        self.assertEqual(supervisor.end()['health'], '')
        page = dom(supervisor.folder / 'index.html')
        self.assertIn('<title>20251128-120000-bbbbbb: Completed</title>', page, 'no script of a name has run')
        self.assertNotIn('<img', page)
        self.assertIn('data-charts="2"', page)
        self.assertEqual(len(re.findall(r'<script', page)), 3)
        self.assertGreaterEqual(html.unescape(page).count(HOSTILE), 6)


if __name__ == '__main__':
    unittest.main()
