"""pgAdmin 4, in a browser: a server is registered, its tree is opened down to a column, rows are looked at, queries are run."""

import contextlib
import os
import pathlib
import secrets
import socket
import subprocess
import sys
import tempfile
import traceback
import urllib.parse

from selenium import webdriver
from selenium.common.exceptions import WebDriverException
from selenium.webdriver import ActionChains, Keys
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import WebDriverWait

door = urllib.parse.urlparse(os.environ["FLUMEN_PG"])
# What is waited for comes within a second or two, unless the machine has much else to do.
PATIENCE_S = 120
FLAGS = """--headless=new --no-sandbox --disable-gpu --disable-quic --disable-dev-shm-usage --no-first-run --disable-sync
--disable-background-networking --disable-component-update --window-size=1600,1000""".split()
# No network, no questions about passwords to keep, and the log of what it asks the server.
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

            def answers(_):
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


class Page:
    """What a person sees and does. Everything waits until it can be done."""

    def __init__(self, browser):
        self.browser = browser

    def wait(self, what, condition):
        waiting = WebDriverWait(self.browser, PATIENCE_S, 0.1, [WebDriverException])
        return waiting.until(condition, f"not seen: {what}")

    def find(self, css, text=None):
        """The last element that is shown, which has `text`."""

        def shown(browser):
            found = browser.find_elements(By.CSS_SELECTOR, css)
            found = [one for one in found if one.is_displayed() and (text is None or one.text.strip() == text)]
            return found[-1] if found else None

        return self.wait(f"{css} {text or ''}", shown)

    def click(self, css, text=None):
        self.wait(f"{css} {text or ''} to click", lambda _: self.find(css, text).click() or True)

    def hover(self, css):
        self.wait(css, lambda browser: ActionChains(browser).move_to_element(self.find(css)).perform() or True)

    def fill(self, name, value):
        """Writes into a field of a form."""

        def filled(_):
            field = self.find(f"input[name={name}]")
            field.send_keys(Keys.CONTROL + "a", value)
            return field.get_attribute("value") == value

        self.wait(f"{name} = {value}", filled)

    def node(self, name, depth):
        """The entry of the tree that is called `name`."""

        def named(browser):
            for entry in browser.find_elements(By.CSS_SELECTOR, f".file-entry[data-depth='{depth}']"):
                if entry.find_element(By.CSS_SELECTOR, ".file-name").text == name:
                    return entry
            return None

        return self.wait(f"{name} in the tree", named)

    def open_node(self, name, depth, child):
        """Opens an entry of the tree, and waits for one below it."""

        def opened(browser):
            toggle = self.node(name, depth).find_element(By.CSS_SELECTOR, ".directory-toggle")
            if "open" not in toggle.get_attribute("class").split():
                toggle.click()
            below = browser.find_elements(By.CSS_SELECTOR, f".file-entry[data-depth='{depth + 1}'] .file-name")
            return child in [one.text for one in below]

        self.wait(f"{child} below {name}", opened)

    def choose(self, name, depth, menu, entry):
        """Chooses from the menu of an entry of the tree."""

        def chosen(browser):
            ActionChains(browser).context_click(self.node(name, depth).find_element(By.CSS_SELECTOR, ".file-name")).perform()
            self.hover(f"[data-label='{menu}']")
            self.click(f"[data-label='{entry}']")
            return True

        self.wait(f"{menu} > {entry} of {name}", chosen)

    def rows(self, expected):
        """Waits for these rows in the grid of results."""

        def shown(browser):
            rows = []
            for row in browser.find_elements(By.CSS_SELECTOR, "#id-dataoutput [role=row]"):
                cells = [cell.text for cell in row.find_elements(By.CSS_SELECTOR, "[role=gridcell]")]
                rows += [cells[1:]] if cells else []
            return rows == expected

        self.wait(f"the rows {expected}", shown)

    def run(self, sql):
        """Runs a query in the query tool."""
        self.wait(sql, lambda _: self.find(".cm-content").send_keys(Keys.CONTROL + "a", sql) or True)
        self.click("button[data-label='Execute script']")

    def message(self, *parts):
        """Waits for a message below the query."""

        def shown(browser):
            texts = [one.get_attribute("value") for one in browser.find_elements(By.CSS_SELECTOR, "#id-messages textarea")]
            return any(all(part in text for part in parts) for text in texts)

        self.wait(f"the message {parts}", shown)

    @contextlib.contextmanager
    def tool(self, title):
        """What is opened in a tab of its own."""
        self.find(".dock-tab", title)
        self.wait("its page", lambda browser: browser.switch_to.frame(self.find("iframe")) or True)
        yield
        self.browser.switch_to.default_content()

    def seen(self):
        """Everything that can be read."""
        texts = [self.browser.find_element(By.TAG_NAME, "body").text]
        for frame in range(len(self.browser.find_elements(By.TAG_NAME, "iframe"))):
            self.browser.switch_to.frame(frame)
            texts.append(self.browser.find_element(By.TAG_NAME, "body").text)
            texts += [area.get_attribute("value") for area in self.browser.find_elements(By.TAG_NAME, "textarea")]
            self.browser.switch_to.default_content()
        return "\n---\n".join(texts)


def register(page):
    """The server is made known through the dialog."""
    page.node("Servers", 1).click()
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
    for depth, (name, child) in enumerate(zip(path, path[1:]), 2):
        page.open_node(name, depth, child)
    columns = page.browser.find_elements(By.CSS_SELECTOR, ".file-entry[data-depth='10'] .file-name")
    assert [column.text for column in columns] == ["id", "name", "fare", "day", "at", "ok"]


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
    page.node("lake", 4).click()
    page.click("button[data-label='Query Tool']")
    with page.tool("lake/me@flumen*"):
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
            page.browser.switch_to.default_content()
            print("The page:", page.seen(), sep="\n")
            for log in ["pgadmin.log", "output.log"]:
                print(f"{log}:", (folder / log).read_text()[-20_000:] if (folder / log).exists() else "", sep="\n")
            sys.exit(1)
    print("ok")


main()
