"""A warm interpreter: it forks for each task that it is asked to run, and tells how each of them ended.

The socket is its standard input. A message asks for a task: a line of JSON, with the write ends of two pipes for what the task
prints. Messages back: {"id", "pid"} when it has begun, {"id", "exit"} or {"id", "signal"} when it has ended. What the call of a
function returns is written to the file `result`, what it raises to `problem`. The interpreter itself runs nothing of the
user's: a task that breaks breaks itself.

A task's process shares the memory of the interpreter until it writes to it, and every page that it writes to is copied. So what can be done
before is done before, and what need not be touched is not.
"""
import array, ast, atexit, gc, json, os, selectors, signal, socket, sys, threading

# What most tasks import anyway: it is there already when they begin.
import collections, contextlib, csv, datetime, decimal, functools, importlib.util, inspect, io, itertools, logging, math  # noqa: F401
import pathlib, random, re, resource, runpy, shutil, subprocess, tempfile, textwrap, time, traceback, types, typing, uuid  # noqa: F401
import urllib.request  # noqa: F401

MESSAGE_BYTES = 64 << 10
# Files whose compiled form is remembered.
COMPILED = 256
# The exit code of a task that had nothing to do.
NOTHING_TO_DO = 99


def plain(value):
    """What JSON has no word for, as JSON."""
    if isinstance(value, (datetime.datetime, datetime.date, datetime.time)):
        return value.isoformat()
    if isinstance(value, (set, frozenset)):
        return sorted(value, key=repr)
    if isinstance(value, (decimal.Decimal, uuid.UUID, pathlib.PurePath)):
        return str(value)
    if isinstance(value, collections.abc.Mapping):
        return dict(value)
    if hasattr(value, "__dataclass_fields__"):
        return {name: getattr(value, name) for name in value.__dataclass_fields__}
    for method in ("item", "tolist", "isoformat"):  # numbers, arrays and times of NumPy and pandas
        if callable(getattr(value, method, None)):
            return getattr(value, method)()
    raise TypeError(f"what the function returns has a {type(value).__name__} in it, which is no JSON: return plain values, or write "
                    "the data somewhere and return where it is")


def body(path, names):
    """The function whose body is in a file, with parameters that have these names."""
    with open(path) as file:
        tree = ast.parse(textwrap.dedent(file.read()), path)
    waits = any(isinstance(node, (ast.Await, ast.AsyncFor, ast.AsyncWith)) for node in ast.walk(tree))
    kind = "async def" if waits else "def"
    shell = ast.parse(f"{kind} task({', '.join(names)}):\n    pass", path)
    shell.body[0].body = tree.body or shell.body[0].body
    space = {"__name__": "task", "__file__": path}
    exec(compile(shell, path, "exec"), space)
    return space["task"]


def call(task):
    """Runs the task, in a process of its own."""
    path = os.path.abspath(task["file"])
    sys.path[:0] = [os.path.dirname(path), *task["paths"]]
    given = {}
    if task["way"] == "file":
        sys.argv = [path, *task["arguments"]]
        runpy.run_path(path, run_name="__main__")
        return
    given = task["given"]
    if given is None:
        with open(task["input"]) as file:
            given = json.load(file)
    if task["way"] == "body":
        function = body(path, given.get("kwargs", {}))
    else:
        function = named(path, task["function"], task["code"])
    returned = function(*given.get("args", []), **given.get("kwargs", {}))
    if inspect.iscoroutine(returned):
        import asyncio

        returned = asyncio.run(returned)
    try:
        text = json.dumps(returned, default=plain, allow_nan=False)
    except ValueError as error:
        if "JSON compliant" not in str(error):
            raise
        raise ValueError("an output cannot have nan or an infinite number in it: return None in its place") from None
    write(task["result"], text)


def compiled(known, path):
    """A file, compiled; None where that does not work: then the task's own process says why."""
    try:
        path = os.path.abspath(path)
        there = os.stat(path)
        version = there.st_mtime_ns, there.st_size, there.st_ino
        if known.get(path, (None,))[0] != version:
            with open(path, "rb") as file:
                code = compile(file.read(), path, "exec", dont_inherit=True)
            if len(known) >= COMPILED:
                known.clear()
            known[path] = version, code
        return known[path][1]
    except Exception:
        return None


def named(path, wanted, code):
    """The function called `wanted` in a file."""
    name = os.path.splitext(os.path.basename(path))[0]
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    if code is None:
        spec.loader.exec_module(module)
    else:
        exec(code, module.__dict__)
    function = getattr(module, wanted, None)
    if not callable(function):
        known = [n for n, value in vars(module).items() if inspect.isfunction(value) and not n.startswith("_")]
        sys.exit(f"{os.path.basename(path)} has no function '{wanted}'; it has: {', '.join(known) or 'none'}")
    return function


def write(path, text):
    """Writes a file. It is read only if this process ends as it should."""
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o666)
    left = text.encode()
    while left:
        left = left[os.write(file, left):]
    os.close(file)


def surround(environment):
    """Makes the environment variables those of the task."""
    for name in [name for name in os.environ if name not in environment]:
        del os.environ[name]
    for name, value in environment.items():
        if os.environ.get(name) != value:
            os.environ[name] = value


def skips(kind):
    """Whether an exception says that there is nothing to do: its class, or one that it is made from, is called Skip-something."""
    return any(one.__name__.startswith(("Skip", "AirflowSkip")) for one in kind.__mro__)


def child(task, pipes, inherited):
    """The task's own process, from its first to its last step. Does not return."""
    code = 1
    try:
        os.setpgid(0, 0)
        signal.set_wakeup_fd(-1)
        for number in (signal.SIGCHLD, signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_DFL)
        os.dup2(pipes[0], 1)
        os.dup2(pipes[1], 2)
        nothing = os.open(os.devnull, os.O_RDONLY)
        os.dup2(nothing, 0)
        for fd in {*pipes, *inherited, nothing} - {0, 1, 2}:
            os.close(fd)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        surround(task["environment"])
        os.chdir(task["folder"])
        if task.get("memory_bytes"):
            resource.setrlimit(resource.RLIMIT_AS, (task["memory_bytes"], task["memory_bytes"]))
        gc.enable()
        call(task)
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 0 if end.code is None else 1
        if code == 1 and not isinstance(end.code, int):
            print(end.code, file=sys.stderr)
            write(task["problem"], json.dumps({"kind": "SystemExit", "message": str(end.code)}))
    except BaseException:
        # What the user sees begins in the user's own file.
        kind, error, trace = sys.exc_info()
        if skips(kind):
            code = NOTHING_TO_DO
            message = str(error)
        else:
            message = "".join(traceback.format_exception_only(kind, error)).strip()
        write(task["problem"], json.dumps({"kind": kind.__name__, "message": message}))
        if code == NOTHING_TO_DO:
            return
        own = trace
        while own is not None and own.tb_frame.f_code.co_filename.startswith("<"):
            own = own.tb_next
        traceback.print_exception(kind, error, own or trace)
    finally:
        try:
            for thread in threading.enumerate():
                if thread is not threading.current_thread() and not thread.daemon:
                    thread.join()
            atexit._run_exitfuncs()
            sys.stdout.flush()
            sys.stderr.flush()
        finally:
            os._exit(code & 255)


def main():
    door = socket.socket(fileno=os.dup(0))
    wake, woken = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    signal.set_wakeup_fd(woken)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    waiting = selectors.DefaultSelector()
    waiting.register(door, selectors.EVENT_READ)
    waiting.register(wake, selectors.EVENT_READ)
    tasks, known = {}, {}
    # Those of the tasks, which put their own pipes below them.
    sys.stdin = open(0, closefd=False)
    sys.stdout = open(1, "w", buffering=1, closefd=False)
    sys.stderr = open(2, "w", buffering=1, closefd=False)
    # What is there by now stays: nobody looks through it for garbage.
    gc.disable()
    gc.collect()
    gc.freeze()
    say = lambda message: door.sendall(json.dumps(message).encode())
    while True:
        for key, _ in waiting.select():
            if key.fileobj is door:
                text, pipes, _, _ = socket.recv_fds(door, MESSAGE_BYTES, 2)
                if not text:
                    os._exit(0)
                task = json.loads(text)
                task["code"] = compiled(known, task["file"]) if task["way"] == "function" else None
                pid = os.fork()
                if pid == 0:
                    child(task, pipes, [door.fileno(), wake, woken, waiting.fileno()])
                try:
                    os.setpgid(pid, pid)
                except OSError:
                    pass  # it was faster
                for fd in pipes:
                    os.close(fd)
                tasks[pid] = task["id"]
                say({"id": task["id"], "pid": pid})
            else:
                os.read(wake, 4096)
                while tasks:
                    pid, status = os.waitpid(-1, os.WNOHANG)
                    if pid == 0:
                        break
                    number = tasks.pop(pid, None)
                    if number is not None and os.WIFSIGNALED(status):
                        say({"id": number, "signal": os.WTERMSIG(status)})
                    elif number is not None:
                        say({"id": number, "exit": os.WEXITSTATUS(status)})


main()
