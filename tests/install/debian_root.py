"""A minimal Debian 12 in a folder, made once by debootstrap, and commands inside it that leave no trace there.

Each command runs in namespaces of its own: its files (tmpfs on /opt, /tmp and /root), its processes and its network (an
own loopback, nothing else) end with it.
"""

import fcntl
import os
import pathlib
import re
import shlex
import shutil
import subprocess

SUITE = 'bookworm'
# A first run downloads some 60 MB.
MAKING_S = 600


class NotThere(Exception):
    """It cannot be made here; the text says why."""


def mirror():
    """The mirror that this machine's own packages come from."""
    lists = pathlib.Path('/etc/apt/sources.list.d')
    for path in [pathlib.Path('/etc/apt/sources.list'), *sorted(lists.glob('*.sources')), *sorted(lists.glob('*.list'))]:
        text = path.read_text() if path.exists() else ''
        for found in re.findall(r'^(?:URIs:|deb(?:\s+\[[^]]*\])?)\s+(https?://\S+)', text, re.MULTILINE):
            if re.search(r'/debian/?$', found):
                return found
    raise NotThere('no Debian mirror stands in /etc/apt/sources.list or /etc/apt/sources.list.d')


def proxies():
    """debootstrap reads the environment, apt its own configuration."""
    environment = dict(os.environ)
    for scheme in ('http', 'https'):
        told = subprocess.run(['apt-config', 'shell', 'p', f'Acquire::{scheme}::Proxy'], capture_output=True, text=True)
        value = shlex.split(told.stdout.partition('=')[2])
        if value and value[0] not in ('', 'DIRECT'):
            environment.setdefault(f'{scheme}_proxy', value[0])
    return environment


def debian_root(folder):
    """The root below the folder; made where it is missing."""
    if os.geteuid() != 0:
        raise NotThere('chroot needs root')
    for tool in ('debootstrap', 'unshare', 'ip', 'zstd'):
        if not shutil.which(tool):
            raise NotThere(f'{tool} is not installed')
    folder = pathlib.Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    root, complete = folder / SUITE, folder / f'{SUITE}.complete'
    with open(folder / 'lock', 'w', encoding='ascii') as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if complete.exists():
            return str(root)
        if os.environ.get('BASIN_TEST_NO_INSTALL'):
            raise NotThere(f'{root} is not there, and nothing may be downloaded')
        shutil.rmtree(root, ignore_errors=True)
        command = ['debootstrap', '--variant=minbase', SUITE, str(root), mirror()]
        print('making it once:', ' '.join(command), flush=True)
        made = subprocess.run(command, env=proxies(), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT, text=True, timeout=MAKING_S)
        if made.returncode != 0:
            raise NotThere(f'{" ".join(command)} ended with {made.returncode}:\n' + '\n'.join(made.stdout.splitlines()[-5:]))
        shutil.rmtree(root / 'var' / 'cache' / 'apt', ignore_errors=True)
        complete.touch()
    return str(root)


# $1 the root, $2 the archive, $3 a folder that becomes /opt/given; the rest is run by sh inside, in /opt.
ENTER = r'''
set -eu
root=$1 archive=$2 given=$3
shift 3
mount --make-rprivate /
ip link set lo up
for place in opt tmp root dev/shm; do
  mkdir -p "$root/$place"
  mount -t tmpfs -o mode=0755 tmpfs "$root/$place"
done
for device in null zero urandom; do
  [ -e "$root/dev/$device" ] || : >"$root/dev/$device"
  mount --bind "/dev/$device" "$root/dev/$device"
done
mount -t proc proc "$root/proc"
zstd -qdc "$archive" | tar -C "$root/opt" -xf -
cp -a "$given" "$root/opt/given"
# The shell stays as process 1: the command is to run as on a machine, where it is not.
exec chroot "$root" /usr/bin/env -i HOME=/root PATH=/usr/bin:/bin LANG=C.UTF-8 sh -c 'cd /opt && "$@"; exit $?' sh "$@"
'''


def run_inside(root, archive, given, command, timeout_s=600):
    """Unpacks the archive into /opt of the root, copies the folder `given` to /opt/given, and runs the command there.

    Returns (exit code, its output). Whatever it started is gone on return.
    """
    done = subprocess.run(
        ['unshare', '--mount', '--net', '--uts', '--ipc', '--pid', '--fork', '--kill-child', 'sh', '-c', ENTER, 'sh',
         root, archive, given, *command],
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors='replace',
        timeout=timeout_s)
    return done.returncode, done.stdout
