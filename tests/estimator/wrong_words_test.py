"""What `basin` says of wrong words on its command line and of wrong files that they name: exit code 2, and what to do."""

import os
import re
import subprocess
import tempfile
import unittest

BASIN = os.path.join(os.environ['BASIN_BINARY_DIR'], 'bin', 'basin')


class WrongWordsTest(unittest.TestCase):

    def setUp(self):
        scratch = tempfile.TemporaryDirectory(prefix='basin-test-')
        self.addCleanup(scratch.cleanup)
        self.folder = scratch.name
        self.environment = {'HOME': self.path('home'), 'PATH': os.environ['PATH']}
        self.write('home/here', '')
        self.write('train.sh', 'echo trained\n')
        self.job = self.write('job.yaml', 'entry_script: train.sh\ninputs: [{name: mnist, path: /usr}]\n')

    def path(self, *parts):
        return os.path.join(self.folder, *parts)

    def write(self, name, text):
        os.makedirs(os.path.dirname(self.path(name)), exist_ok=True)
        with open(self.path(name), 'w', encoding='utf-8') as file:
            file.write(text)
        return self.path(name)

    def basin(self, *words):
        return subprocess.run([BASIN, *words], env=self.environment, cwd=self.folder, text=True, stdin=subprocess.DEVNULL,
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=300)

    def refuses(self, *words):
        """What it says with exit code 2."""
        ended = self.basin(*words)
        self.assertEqual(ended.returncode, 2, ended.stdout)
        return ended.stdout

    def accepts(self, *words):
        ended = self.basin(*words)
        self.assertEqual(ended.returncode, 0, ended.stdout)
        return ended.stdout

    def test_flag_that_is_given_and_empty_is_refused(self):
        for flag in ('--hosts', '--target', '--targets', '--bundle', '--runs', '--programs'):
            for words in ((flag, ''), (flag + '=',)):
                self.assertIn(f'{flag}: is given, but empty', self.refuses('submit', *words, self.job, '--dry-run'))
        self.assertIn('--hosts: is given, but empty', self.refuses('doctor', '--hosts', ''))
        self.assertIn('--targets: is given, but empty', self.refuses('targets', '--targets', ''))
        self.assertIn('--runs: is given, but empty', self.refuses('runs', '--runs', ''))
        self.accepts('submit', self.job, '--dry-run')

    def test_files_that_flags_name_are_looked_at_for_every_target(self):
        empty = self.write('empty.yaml', 'nonsense: [\n')
        for command in (('submit', self.job, '--dry-run'), ('doctor',)):
            for flag in ('--targets', '--bundle'):
                for target in ((), ('--target', 'local')):
                    text = self.refuses(*command, *target, flag, '/nonexist')
                    self.assertRegex(text, rf'error: {flag} /nonexist: does not exist; give an? .*, or leave the flag out')
                self.assertIn(f'{flag} {self.folder}: is a folder; give a', self.refuses(*command, flag, self.folder))
            self.assertIn(f'{empty}:', self.refuses(*command, '--targets', empty))
        self.assertIn('--targets /nonexist: does not exist', self.refuses('targets', '--targets', '/nonexist'))

    def test_entry_script_that_an_ignore_file_leaves_out_is_refused_before_the_start(self):
        self.write('.basinignore', '*.sh\n')
        for words in ((), ('--dry-run',)):
            text = self.refuses('submit', self.job, *words)
            self.assertIn('error: entry_script: train.sh does not reach the nodes: .basinignore leaves out train.sh by its line "*.sh"; remove', text)
        self.write('.basinignore', '*.sh\n!train.sh\n')
        self.accepts('submit', self.job, '--dry-run')

    def test_input_that_is_too_large_is_wrong_input(self):
        large = self.write('large.yaml', '#' * (2 << 20) + '\n')
        for command in ('submit', 'doctor'):
            self.assertIn(f'job file {large} is larger than 2 MiB', self.refuses(command, large))
        with open(self.path('data.bin'), 'wb') as file:
            file.truncate(2_000_000)
        limited = self.write('limited.yaml', 'entry_script: train.sh\nsnapshot_limit_mb: 1\n')
        self.assertIn('data.bin to .basinignore', self.refuses('submit', limited))

    def test_job_file_that_cannot_be_read_is_said_to_be_one(self):
        for command in ('submit', 'doctor'):
            self.assertIn('error: job file nosuch.yaml does not exist; give the path of one', self.refuses(command, 'nosuch.yaml'))
            self.assertIn(f'error: job file {self.folder} cannot be read: ', self.refuses(command, self.folder))

    def test_doctor_refuses_the_jobs_that_submit_refuses(self):
        for text, complaint in (
                ('entry_script: nosuch.sh', 'entry_script: .*/nosuch.sh does not exist'),
                ('entry_script: train.sh\npip_requirements_file: nosuch.txt', 'pip_requirements_file: .*/nosuch.txt does not exist'),
                ('entry_script: train.sh\nsecrets: [NO_SUCH_KEY]', 'secrets: NO_SUCH_KEY is not set here; export it'),
                ('entry_script: train.sh\ndistributed_backend: ps\nroles: {worker: {cpus: 2}}', 'roles: worker.cpus: only Slurm and Kubernetes grant it, and the target local '),
        ):
            job = self.write('wrong.yaml', text + '\n')
            for command in (('submit', '--dry-run'), ('doctor',)):
                self.assertRegex(self.refuses(*command, job), complaint)

    def test_doctor_names_the_target_that_was_chosen(self):
        job = self.write('wide.yaml', 'entry_script: train.sh\ndistributed_backend: ps\nnode_count: 2\nworker_count: 2\n')
        self.assertIn('but the target h0 has one machine', self.refuses('doctor', '--hosts', 'h0', job).replace('"', ''))

    def test_folder_that_cannot_be_made_is_named_with_the_variable_that_names_another(self):
        self.environment |= {'BASIN_CACHE': '/proc/none/cache', 'BASIN_RUNS': self.path('runs')}
        self.assertRegex(self.refuses('submit', self.job),
                         "error: Basin's own files cannot be kept in /proc/none/cache: .*; name another folder with BASIN_CACHE")
        self.assertFalse(os.path.exists(self.path('runs')))
        self.environment |= {'BASIN_CACHE': self.path('cache'), 'BASIN_RUNS': '/proc/none/runs'}
        self.assertRegex(self.refuses('submit', self.job),
                         'error: no run can be kept in /proc/none/runs: .*; name another folder with --runs DIR or BASIN_RUNS')

    def test_bundle_of_a_target_is_named_with_its_file(self):
        targets = self.write('targets.yaml', 'lab:\n  kind: ssh\n  nodes: [h0]\n  bundle: nope\n')
        self.assertRegex(self.refuses('doctor', '--target', 'lab'),
                         f'error: bundle of the target lab: open .*nope: No such file.*; correct it in {targets}, or remove it')

    def test_misspelt_command_or_flag_is_named_with_the_nearest(self):
        for words, complaint in (
                (('sumbit', self.job), 'there is no command "sumbit"; did you mean "submit"? basin --help lists'),
                (('models', 'regster', 'net'), 'there is no command "models regster"; did you mean "models register"? basin models --help lists'),
                (('nosuch', '--help'), 'there is no command "nosuch"; basin --help lists'),
                (('environment-biuld',), 'there is no command "environment-biuld"; basin --help lists'),
                (('submit', '--detatch', self.job), 'submit: unknown word --detatch; did you mean --detach?'),
                (('logs', 'latest', '--folow'), '--folow; did you mean --follow? basin logs --help says more'),
                (('submit',), 'JOB is required; basin submit --help says more'),
                ((), 'which command? basin --help lists them'),
        ):
            text = self.refuses(*words)
            self.assertTrue(text.startswith('basin: error: '), text)
            self.assertIn(complaint, text)
        self.assertIn('submit', self.accepts('--help'))
        self.assertIn('--path', self.accepts('models', 'register', '--help'))

    def test_words_that_nothing_takes_are_named_with_what_takes_them(self):
        for words, says in (
                (('show', 'latest', 'extra'), 'unknown word extra; basin show --help says more'),
                (('runs', '--limti', '3'), 'unknown word --limti; did you mean --limit? basin runs --help says more'),
                (('logs', 'latest', '-n', '5'), 'unknown word -n; basin logs --help says more'),
                (('doctor', '--hosts'), '--hosts: its value is missing; basin doctor --help says more'),
                (('models', 'show'), 'MODEL is required; basin models show --help says more'),
                (('models',), 'which command? basin models --help lists them'),
                (('--verbose',), 'unknown word --verbose; basin --help says more'),
                (('help',), 'there is no command "help"; did you mean "--help"? basin --help lists'),
                (('top', '--timeout', 'x'), '--timeout: expected a whole number from 0 up, found "x"'),
                (('top', '--ps', 'h0'), 'top: ps 0 at h0: expected host:port, found no port; add one'),
                (('runs', '--state', 'Done'), '--state Done: no state of a run; states are NotStarted, Starting, '),
                (('logs', 'latest', '--task', ''), '--task: is given, but empty'),
        ):
            self.assertIn('basin: error: ' + says, self.refuses(*words))

    def test_every_command_documents_its_exit_codes(self):
        def commands(*words):
            text = self.accepts(*words, '--help')
            self.assertIn('Print this help message and exit', text)
            below = text.partition('Subcommands:\n')[2].partition('\n\n')[0]
            if not below or not words:
                self.assertRegex(text, r'\nExit code[\s\S]* 0 [\s\S]* 2 ', words)
            for name in re.findall(r'(?m)^  ([a-z]+) ', below):
                commands(*words, name)
            return text

        self.assertIn('basin submit JOB', commands())

    def test_number_out_of_its_range_is_refused_on_one_short_line(self):
        for words in (('logs', 'latest', '--tail'), ('runs', '--limit')):
            for wrong in ('-1', 'many', '1.5', '99999999999999999999'):
                text = self.refuses(*words, wrong)
                self.assertIn(f'{words[-1]}: expected a whole number from 0 up, found "{wrong}"; basin {words[0]} --help', text)
                self.assertLess(len(text), 150)
        self.accepts('runs', '--limit', '0')

    def test_two_neighbouring_letters_that_are_swapped_are_one_slip(self):
        for word, meant in (('rnus', 'runs'), ('sohw', 'show'), ('lgos', 'logs'), ('otp', 'top'), ('SOHW', 'show')):
            self.assertIn(f'there is no command "{word}"; did you mean "{meant}"?', self.refuses(word))
        self.assertNotIn('did you mean', self.refuses('swho'))
        job = self.write('swapped.yaml', 'entry_script: train.sh\ninputs: [{nmae: mnist, path: /usr}]\n')
        self.assertIn('did you mean "name"?', self.refuses('submit', job))

    def test_words_of_the_next_step_fit_where_they_are_said(self):
        self.assertIn('--param: "x" is no flag; write --param --name=value', self.refuses('submit', self.job, '--param', 'x'))
        self.assertIn('or latest', ' '.join(self.accepts('delete', '--help').split()))
        self.assertIn('--step: expected a whole number of 64 bits, found "9223372036854775808"',
                      self.refuses('metric', 'log', 'a', '1', '--step', '9223372036854775808'))
        self.assertIn('"0x10" is no number', self.refuses('metric', 'log', 'a', '0x10'))

    def test_path_at_home_is_refused_where_no_shell_writes_it_out(self):
        says = 'only a shell knows what ~ stands for; write the folder out'
        self.assertIn(f'--input mnist=~/mnist: "~/mnist": {says}', self.refuses('submit', self.job, '--input', 'mnist=~/mnist'))
        for field in ('source_directory: ~/code', 'inputs: [{name: mnist, path: ~/mnist}]'):
            job = self.write('home.yaml', f'entry_script: train.sh\n{field}\n')
            self.assertRegex(self.refuses('submit', job), rf'home.yaml:2:\d+: .*: "~/[a-z]*": {says}')

    def test_model_whose_name_was_taken_for_the_path_says_so(self):
        self.environment['BASIN_RUNS'] = self.path('runs')
        self.assertIn(': 1 task, folder', self.accepts('submit', self.job))
        self.assertIn('without --path the model\'s name, net, is the path too: give --path outputs/FILE',
                      self.refuses('models', 'register', 'net', '--run', 'latest'))
        self.assertIn('logs/worker-0.txt', self.accepts('models', 'register', 'net', '--run', 'latest', '--path', 'logs/worker-0.txt'))


if __name__ == '__main__':
    unittest.main()
