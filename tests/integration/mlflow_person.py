"""What a person does and sees in MLflow's and Prefect's own pages, by clicking, while versions roll out."""

from dataclasses import dataclass

from playwright.sync_api import Locator, Page, expect

# A page that shows what changes meanwhile is loaded again and again.
_RELOADS = 120


@dataclass(frozen=True, slots=True)
class Person:
    """Somebody before a browser, at the pages of one registered model."""

    page: Page
    mlflow_url: str
    prefect_url: str
    model: str

    def open_version(self, version: str) -> None:
        self.page.goto(f"{self.mlflow_url}/#/models/{self.model}/versions/{version}")
        self.page.reload()
        expect(self.page.get_by_role("heading", name=f"Version {version}")).to_be_visible()

    def open_model(self) -> None:
        """The list of its versions."""
        self.page.goto(f"{self.mlflow_url}/#/models/{self.model}")
        self.page.reload()
        expect(self.page.get_by_role("link", name="Version 1")).to_be_visible()

    def add_alias(self, version: str, alias: str) -> None:
        """Click, type and save; an alias that another version carries moves here."""
        dialog = self._aliases_of(version)
        dialog.get_by_role("combobox").click()
        self.page.keyboard.type(alias)
        self.page.keyboard.press("Enter")
        self._save(dialog)
        expect(self.alias(alias)).to_be_visible()

    def remove_alias(self, version: str, alias: str) -> None:
        dialog = self._aliases_of(version)
        dialog.get_by_role("status").filter(has_text=alias).get_by_role("button").click()
        self._save(dialog)
        expect(self.alias(alias)).to_be_hidden()

    def sees(self, version: str, **tags: str) -> None:
        """Look at the version's page until its tags say so."""
        for _ in range(_RELOADS):
            self.open_version(version)
            if all(value in self.tag(key) for key, value in tags.items()):
                # MLflow shows tags in a table of its own height.
                self.page.get_by_text(f"signalbox.{max(tags)}", exact=True).scroll_into_view_if_needed()
                return
        raise AssertionError(
            f"version {version} never showed {tags}\n{self.page.locator('main').inner_text()}"
        )

    def alias(self, alias: str) -> Locator:
        """The alias on the version's page."""
        return self.page.locator("main").get_by_role("status", name=alias, exact=True)

    def tag(self, key: str) -> str:
        """What the version's page shows beside `signalbox.<key>`; nothing where there is no such tag."""
        name = f"signalbox.{key}"
        row = self.page.get_by_role("row").filter(has=self.page.get_by_role("cell", name=name, exact=True))
        return row.inner_text() if row.count() else ""

    def open_run_file(self, experiment: str, run: str, name: str) -> None:
        """A file beside a run, as MLflow shows it; `name` within folder `signalbox`."""
        self.page.goto(f"{self.mlflow_url}/#/experiments/{experiment}/runs/{run}/artifacts/signalbox")
        self.page.get_by_text(name).first.click()

    def open_artifact(self, artifact: str) -> None:
        self.page.goto(f"{self.prefect_url}/artifacts/artifact/{artifact}")

    def open_flow_run(self, run: str) -> None:
        self.page.goto(f"{self.prefect_url}/runs/flow-run/{run}")

    def _aliases_of(self, version: str) -> Locator:
        self.open_version(version)
        self.page.locator("button[title='Add aliases'], button[title='Edit aliases']").click()
        return self.page.get_by_role("dialog")

    def _save(self, dialog: Locator) -> None:
        dialog.get_by_role("button", name="Save aliases").click()
        expect(dialog).to_be_hidden()
