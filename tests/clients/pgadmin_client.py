"""pgAdmin 4, in a browser: a server is registered, its tree is opened down to a column, rows are looked at, queries are run."""

import contextlib
import os
import pathlib
import secrets
import socket
import subprocess
import sys
import tempfile
import time
import traceback
import urllib.parse

from selenium import webdriver
from selenium.common.exceptions import NoSuchElementException, WebDriverException
from selenium.webdriver import ActionChains, Keys
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import WebDriverWait

door = urllib.parse.urlparse(os.environ["FLUMEN_PG"])
# What is waited for comes within a second or two, unless the machine has much else to do.
PATIENCE_S = 240
# How long a click in the tree may be without effect.
RETRY_S = 5
FLAGS = """--headless=new --no-sandbox --disable-gpu --disable-quic --disable-dev-shm-usage --no-first-run --disable-sync
--disable-background-networking --disable-component-update --window-size=1600,1200""".split()
# No network, and no questions about passwords to keep.
SETTINGS = """
UPGRADE_CHECK_ENABLED = False
MASTER_PASSWORD_REQUIRED = False
USE_OS_SECRET_STORAGE = False
DATA_DIR = {data!r}
LOG_FILE = {log!r}
"""


@contextlib.contextmanager
def running_pgadmin(folder):
    """pgAdmin for one user, as the desktop has it. Gives its address, and what ends with an error once it has ended."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    key = secrets.token_hex(8)
    settings = folder / "settings.py"
    settings.write_text(SETTINGS.format(data=str(folder / "data"), log=str(folder / "pgadmin.log")))
    environment = dict(os.environ, HOME=str(folder), PGADMIN_SERVER_MODE="OFF", PGADMIN_INT_PORT=str(port), PGADMIN_INT_KEY=key)
    environment["CONFIG_DISTRO_FILE_PATH"] = str(settings)
    [package] = [pathlib.Path(entry) / "pgadmin4" for entry in sys.path if (pathlib.Path(entry) / "pgadmin4/pgAdmin4.py").is_file()]
    with open(folder / "output.log", "wb") as output:
        process = subprocess.Popen([sys.executable, package / "pgAdmin4.py"], env=environment, stdout=output, stderr=output)
        try:

            def answers():
                assert process.poll() is None, "pgAdmin has ended"
                with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)):
                    return True

            yield f"http://127.0.0.1:{port}/?key={key}", answers
        finally:
            process.terminate()
            process.wait()


@contextlib.contextmanager
def running_browser(folder):
    options = webdriver.ChromeOptions()
    options.binary_location = "/usr/bin/chromium"
    for flag in [*FLAGS, f"--user-data-dir={folder / 'browser'}"]:
        options.add_argument(flag)
    browser = webdriver.Chrome(options, webdriver.ChromeService("/usr/bin/chromedriver"))
    try:
        yield browser
    finally:
        browser.quit()


# Whatever is typed after this takes the place of what was there.
ALL = Keys.CONTROL + "a" + Keys.NULL


class Page:
    """What a person sees and does. Everything is tried again until it can be done."""

    def __init__(self, browser):
        self.browser = browser

    def wait(self, what, attempt):
        """Waits until `attempt` comes to something. What is not there yet is an error of the browser, and no reason to give up."""
        return WebDriverWait(self.browser, PATIENCE_S, 0.1, [WebDriverException]).until(lambda _: attempt(), f"in vain: {what}")

    def shown(self, css, text=None):
        """The last element that can be seen, of those with this text."""
        found = [one for one in self.browser.find_elements(By.CSS_SELECTOR, css) if one.is_displayed()]
        found = [one for one in found if text is None or one.text.strip() == text]
        if not found:
            raise NoSuchElementException(f"{css} {text or ''}")
        return found[-1]

    def click(self, css, text=None):
        self.wait(f"to click {css} {text or ''}", lambda: self.shown(css, text).click() or True)

    def fill(self, name, value):
        """Writes into a field of a form."""

        def filled():
            field = self.shown(f"input[name={name}]")
            field.send_keys(ALL + value)
            return field.get_attribute("value") == value

        self.wait(f"to write {value} as {name}", filled)

    def node(self, name, depth):
        """The entry of the tree that is called `name`."""
        return self.shown(f".file-entry[data-depth='{depth}'] .file-name", name)

    def open_path(self, path, depth):
        """Opens entries of the tree, each below the one before, the first at `depth`, until the last can be seen.

        All of it is looked at each time: pgAdmin closes what it draws anew once it has connected."""

        clicked_at = {}

        def opened():
            for level, (name, child) in enumerate(zip(path, path[1:]), depth):
                with contextlib.suppress(NoSuchElementException):
                    self.node(child, level + 1)
                    continue
                label = self.node(name, level).find_element(By.XPATH, "..")
                toggle = label.find_element(By.XPATH, "../i")
                is_open = "open" in toggle.get_attribute("class").split() or "loading" in label.get_attribute("class").split()
                # Some entries open by themselves, and another click would close them.
                if not is_open and time.monotonic() - clicked_at.get(name, -RETRY_S) > RETRY_S:
                    clicked_at[name] = time.monotonic()
                    toggle.click()
                return False
            return True

        self.wait(f"to open {path} in the tree", opened)

    def choose(self, name, depth, menu, entry):
        """Chooses from the menu of an entry of the tree."""

        def menu_opened():
            ActionChains(self.browser).context_click(self.node(name, depth)).perform()
            return self.shown(f"[data-label='{menu}']")

        def submenu_opened():
            ActionChains(self.browser).move_to_element(self.shown(f"[data-label='{menu}']")).perform()
            return self.shown(f"[data-label='{entry}']")

        self.wait(f"to open the menu of {name}", menu_opened)
        self.wait(f"to open {menu}", submenu_opened)
        self.click(f"[data-label='{entry}']")

    @contextlib.contextmanager
    def tool(self, title):
        """What has opened in a tab of its own."""
        self.wait(f"to see the tab {title}", lambda: self.shown(".dock-tab", title))
        self.wait("to enter its page", lambda: self.browser.switch_to.frame(self.shown("iframe")) or True)
        yield
        self.browser.switch_to.default_content()

    def run(self, sql):
        """Runs a query in the query tool."""

        def written():
            editor = self.shown(".cm-content")
            editor.send_keys(ALL + sql)
            return editor.text == sql

        self.wait(f"to write {sql}", written)
        self.click("button[data-label='Execute script']")

    def rows(self, expected):
        """Waits for these rows in the grid."""

        def seen():
            rows = self.browser.find_elements(By.CSS_SELECTOR, "#id-dataoutput [role=row]")
            cells = [[cell.text for cell in row.find_elements(By.CSS_SELECTOR, "[role=gridcell]")] for row in rows]
            # Each begins with its number.
            return [row[1:] for row in cells if row] == expected

        self.wait(f"to see the rows {expected}", seen)

    def message(self, *parts):
        """Waits for a message with these parts below the query."""

        def seen():
            text = self.shown("#id-messages textarea").get_attribute("value")
            return all(part in text for part in parts)

        self.wait(f"to read {parts}", seen)

    def everything(self):
        """All that can be read."""
        self.browser.switch_to.default_content()
        texts = [self.browser.find_element(By.TAG_NAME, "body").text]
        for frame in self.browser.find_elements(By.TAG_NAME, "iframe"):
            self.browser.switch_to.frame(frame)
            texts.append(self.browser.find_element(By.TAG_NAME, "body").text)
            texts += [area.get_attribute("value") for area in self.browser.find_elements(By.TAG_NAME, "textarea")]
            self.browser.switch_to.default_content()
        return "\n---\n".join(texts)


def register(page):
    """The server is made known through the dialog."""
    page.choose("Servers", 1, "Register", "Server...")
    page.fill("name", "flumen")
    page.click("button[role=tab]", "Connection")
    page.fill("host", door.hostname)
    page.fill("port", str(door.port))
    page.fill("db", "lake")
    page.fill("username", door.username)
    page.fill("password", "any")
    page.click("button[data-test=Save]")


def open_tree(page):
    """The tree is opened, down to the columns of a table."""
    path = ["flumen", "Databases", "lake", "Schemas", "raw", "Tables", "people", "Columns", "name"]
    page.open_path(path, 2)

    def columns():
        names = page.browser.find_elements(By.CSS_SELECTOR, ".file-entry[data-depth='10'] .file-name")
        return [name.text for name in names] == ["id", "name", "fare", "day", "at", "ok"]

    page.wait("to see the columns", columns)


def look_at_rows(page):
    """The rows of a table, in its order."""
    page.choose("people", 8, "View/Edit Data", "All Rows")
    with page.tool("raw.people/lake/me@flumen"):
        page.rows(
            [
                ["1", "ann", "1.5", "2019-01-01", "2019-01-01 10:00:00", "true"],
                ["2", "bob", "2.25", "2019-01-02", "2019-01-02 11:30:00.5", "false"],
                ["3", "[null]", "[null]", "[null]", "[null]", "[null]"],
            ]
        )


def query(page):
    """Queries of one's own, one of them wrong."""
    page.wait("to choose the database", lambda: page.node("lake", 4).click() or True)
    page.click("button[data-label='Query Tool']")
    with page.tool("lake/me@flumen"):
        page.run("select name, count(*) as n, current_user from raw.people group by name order by name")
        page.rows([["ann", "1", "me"], ["bob", "1", "me"], ["[null]", "1", "me"]])
        page.run("select nope from raw.people")
        page.message("ERROR", "there is no column 'nope'", "LINE 1: select nope from raw.people")


def main():
    with tempfile.TemporaryDirectory(prefix="pgadmin-") as name, contextlib.ExitStack() as stack:
        folder = pathlib.Path(name)
        address, answers = stack.enter_context(running_pgadmin(folder))
        page = Page(stack.enter_context(running_browser(folder)))
        try:
            page.wait("pgAdmin", answers)
            page.browser.get(address)
            register(page)
            open_tree(page)
            look_at_rows(page)
            query(page)
            failed = [line for line in (folder / "pgadmin.log").read_text().splitlines() if "Error Message:" in line]
            assert len(failed) == 1, failed
        except BaseException:
            traceback.print_exc()
            print("The page:", page.everything(), sep="\n")
            for log in ["pgadmin.log", "output.log"]:
                print(f"{log}:", (folder / log).read_text()[-20_000:] if (folder / log).exists() else "", sep="\n")
            sys.exit(1)
    print("ok")


main()
