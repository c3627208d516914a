from small_run import write_run
from tools.cli import main


def test_the_report_of_an_unfinished_run_says_so(tmp_path, monkeypatch, capsys):
    run = write_run(tmp_path / "first")
    run.write_json("run.json", {"status": "interrupted"})
    run.write_text("state.pt", "")
    monkeypatch.chdir(tmp_path)
    assert main(["report", "first"]) == 0
    assert capsys.readouterr().out == "report: first/report.html\n"
    assert "the run is interrupted" in (tmp_path / "first/report.html").read_text()


def test_another_folder_is_refused(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["report", "."]) == 2
    assert "'.' is not a run folder" in capsys.readouterr().err
