"""What the leads' page says, in the languages it knows; Gradio follows the browser. What the server answers is English."""

from typing import Any

import gradio as gr

_WORDS = {
    "heading": ("# Leads' page\n\n[Judging page](/judge.html)", "# 責任者のページ\n\n[判定ページ](/judge.html)"),
    "project": ("Project", "プロジェクト"),
    "progress": ("Progress", "進捗"),
    "agreement": ("Agreement", "一致度"),
    "people": ("People", "判定者"),
    "write_minutes": ("Write the active minutes", "作業時間を書き出す"),
    "no_minutes": ("Nothing written yet", "まだ書き出していません"),
    "minutes": ("Download the active minutes", "作業時間をダウンロード"),
    "disputes": ("Disputes", "意見の相違"),
    "most_disputed": ("Most disputed first", "相違の大きい順"),
    "guideline": ("Guideline", "ガイドライン"),
    "guideline_text": ("Guideline (Markdown)", "ガイドライン（Markdown）"),
    "old": ("Judgements under all earlier guidelines", "以前のガイドラインによる判定"),
    "save": ("Save as a new version", "新しい版として保存"),
    "files": ("Files and versions", "ファイルと版"),
    "again": ("Look again", "もう一度確認"),
    "item": ("Item", "項目"),
    "remark": ("Comment for other leads", "他の責任者へのコメント"),
    "comment": ("Comment", "コメントする"),
    "tie": ("tie", "同程度"),
    "neither": ("neither", "どちらも悪い"),
    "verdict": ("Adjudicate (pairwise projects)", "裁定（二つの比較のみ）"),
    "why": ("Why", "理由"),
    "adjudicate": ("Adjudicate", "裁定する"),
    "person": ("Person", "判定者の名前"),
    "returned_why": ("Reason the person is told", "本人に伝える理由"),
    "send_back": ("Send back", "差し戻す"),
    "pausing": (
        "Pausing needs accounts: `workbench people add NAME`.",
        "一時停止にはアカウントが必要です: `workbench people add NAME`",
    ),
    "name": ("Name", "名前"),
    "audit_why": ("Reason (goes into the audit log)", "理由（監査記録に残ります）"),
    "pause": ("Pause", "一時停止"),
    "let_go_on": ("Let go on", "再開"),
    "choose": ("Choose preferences to import", "取り込むファイルを選ぶ"),
    "import": ("Import what was chosen", "選んだファイルを取り込む"),
    "refused": ("Refused rows", "受け付けなかった行"),
    "form": ("Format", "形式"),
    "export": ("Export everything", "すべて書き出す"),
    "no_export": ("Nothing exported yet", "まだ書き出していません"),
    "fetch": ("Download the export", "書き出しをダウンロード"),
    "version": ("Name of the version", "版の名前"),
    "preview": ("What would be in a version", "版に含まれる内容を見る"),
    "freeze": ("Freeze", "版を固定する"),
    "keep": ("keep them", "そのまま使う"),
    "less": ("let them weigh half", "重みを半分にする"),
    "ask again": ("ask their items again", "もう一度尋ねる"),
}
LANGUAGES = ("en", "ja")
WORDS = gr.I18n(**{
    language: {name: texts[k] for name, texts in _WORDS.items()} for k, language in enumerate(LANGUAGES)
})  # fmt: skip


def t(name: str) -> Any:
    """A text by its name, for labels and other texts that do not change; Gradio types few of them for it."""
    return WORDS(name)
