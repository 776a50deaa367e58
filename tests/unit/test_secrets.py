"""Where a secret is looked for, and what is said when it is not there."""

from pathlib import Path

import pytest

from latticed.secrets import NoSecret, Secrets


def test_the_credential_directory_beats_the_directory_beats_the_environment(tmp_path: Path) -> None:
    credentials, directory = tmp_path / "credentials", tmp_path / "dir"
    credentials.mkdir()
    directory.mkdir()
    environ = {"CREDENTIALS_DIRECTORY": str(credentials), "LATTICED_SECRET_MY_KEY": "from the environment"}
    secrets = Secrets(directory, environ)
    assert secrets.resolve("secret:my-key") == "from the environment"
    (directory / "my-key").write_text("from the directory\n")
    assert secrets.resolve("secret:my-key") == "from the directory"
    (credentials / "my-key").write_text("from the credentials\r\n")
    assert secrets.resolve("secret:my-key") == "from the credentials"


@pytest.mark.parametrize("name", ["", "../x", "a/b", ".hidden", "x" * 65, "a\nb", "-x"])
def test_a_name_that_could_lead_elsewhere_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / "x").write_text("no")
    with pytest.raises(NoSecret, match="secret:NAME"):
        Secrets(tmp_path / "sub", {}).resolve(f"secret:{name}")


def test_a_missing_one_says_where_to_put_it(tmp_path: Path) -> None:
    with pytest.raises(NoSecret, match="set LATTICED_SECRET_MY_KEY"):
        Secrets(tmp_path, {}).resolve("secret:my-key")
    (tmp_path / "my-key").write_bytes(b"\xff\xfe")
    with pytest.raises(NoSecret, match="it is not text") as raised:
        Secrets(tmp_path, {}).resolve("secret:my-key")
    assert "\\xff" not in raised.value.detail
