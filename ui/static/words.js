// What the page says, in the languages it knows; the browser's settings choose. {names} are filled in.

const WORDS = {
  en: {
    annotation: "Annotation", project: "Project", view: "View", prompt: "Prompt", guideline: "Guideline", close: "Close", back: "Back",
    plain: "Plain text", diff: "Differences", undo: "Undo", history: "My judgements", help: "Keys", retry: "Look again",
    verdict: "Your verdict", flags: "Something is wrong with this item", why: "Why? (optional)", edit: "The better answer, improved",
    drop: "Drop the edit", keysHow: "Choose a field and press the key you want. Keys stay in this browser.",
    defaultKeys: "Default keys", skipTitle: "Skip this item", skipWhy: "Why can it not be judged? (optional)", skip: "Skip", skipMore: "Skip …",
    first3: "First: much better", first2: "First: better", first1: "First: slightly", tie: "Equally good",
    second1: "Second: slightly", second2: "Second: better", second3: "Second: much better", neither: "Both bad", up: "Good", down: "Bad",
    pii: "personal data", broken: "broken", offensive: "offensive", rationale: "Say why", unveil: "Show blurred answers",
    editKey: "Edit the better answer", undoKey: "Undo the last judgement",
    answer: "Answer", answer1: "First answer", answer2: "Second answer", answerN: "Answer {n}",
    rateHow: "Press a number for the marked scale; Backspace goes back, Enter judges.", rateOf: "{dimension}, answer {n}", judge: "Judge",
    rankHow: "Press the answers' numbers from best to worst; = ties the next one with the last; Backspace takes one back, Enter judges.",
    rankOf: "Answer {n}: rank {rank}", rankNone: "Answer {n}: no rank yet", rankTie: "Tie the next one", rankBack: "Take one back",
    user: "user", assistant: "assistant", system: "system",
    progress: "{done} of {items} items done", loading: "Loading …", empty: "Nothing to judge now",
    emptyWhy: "Everything is judged or held by others. This page looks again by itself.",
    trialFailed: "The trial was not passed", trialFailedWhy: "Talk to whoever leads the project.",
    trialOn: "The trial goes on", trialOnWhy: "Finish the items you hold.", cap: "Enough for today",
    capWhy: "The project's daily limit is reached. Go on tomorrow.", closed: "The project is closed", closedWhy: "Nothing more is asked.",
    paused: "You are paused", pausedWhy: "Talk to whoever leads the project. What you said is kept.",
    noProject: "No project yet", noProjectWhy: "`workbench ask NAME` puts comparisons on this page.",
    notSaved: "Not saved yet: {n}. {error}. It is kept in this browser and sent again.", unreachable: "The server cannot be reached",
    right: "Right.", wrong: "Not what was expected.", refused: "Not stored: {error}", trial: "Trial item: you are told what was expected.",
    late: "This came after its time had run out and somebody else had judged it: kept, but not used.",
    cannotFill: "Cannot get the next items: {error}. Trying again.", cannotStart: "Cannot reach the server: {error}. Trying again.",
    cannotHistory: "Cannot read your judgements: {error}", veiled: "{warning} Press {key} to show the answers.",
    tooDifferent: "The answers differ too much to compare them word by word.", shared: "… {n} words in both …",
    again: "You judged this before. A new verdict replaces the old one.", nothingToUndo: "Nothing to undo here. 'My judgements' has earlier ones.",
    taken: "'{key}' is the key of '{action}' already.", newGuideline: "The guideline has changed. Read it before you go on.",
    loggedOut: "You are logged out. What you judged is kept in this browser; log in to go on.", logIn: "Log in", logOut: "Log out",
    byProvider: "Log in with your organisation",
    providerUnknown: "Your organisation knows you, but there is no open account for you here. Talk to whoever leads the project.",
    providerUnproved: "Your organisation did not prove who you are, or it took too long. Try again.",
    providerUnreachable: "Your organisation's log-in cannot be reached. Try again, or use a password.",
    name: "Name", password: "Password", lead: "Leads' page", drift: "Drift", returned: "Sent back to you: {reason}",
    arena: "Arena", arenaAsk: "Your prompt", arenaGo: "Let two policies answer", arenaNames: "Stored. First: {first}. Second: {second}.",
    arenaBroken: "An answer broke off: {error}. Ask again.", unwanted: "Show me nothing more of the topic '{topic}'",
    avoided: "You are shown nothing more of '{topic}'. Whoever leads the project can undo that.",
    notAvoided: "The topic is still shown: {error}. Skip an item of it and try again.",
  },
  ja: {
    annotation: "アノテーション", project: "プロジェクト", view: "表示", prompt: "プロンプト", guideline: "ガイドライン", close: "閉じる", back: "戻る",
    plain: "プレーンテキスト", diff: "差分", undo: "元に戻す", history: "自分の判定", help: "キー", retry: "もう一度確認",
    verdict: "あなたの判定", flags: "この項目の問題", why: "理由（任意）", edit: "良い方の回答を改善",
    drop: "編集を破棄", keysHow: "欄を選び、使いたいキーを押してください。設定はこのブラウザに保存されます。",
    defaultKeys: "既定のキー", skipTitle: "この項目をスキップ", skipWhy: "判定できない理由（任意）", skip: "スキップ", skipMore: "スキップ …",
    first3: "1番目がはるかに良い", first2: "1番目が良い", first1: "1番目がやや良い", tie: "同程度",
    second1: "2番目がやや良い", second2: "2番目が良い", second3: "2番目がはるかに良い", neither: "どちらも悪い", up: "良い", down: "悪い",
    pii: "個人情報", broken: "壊れている", offensive: "不快", rationale: "理由を書く", unveil: "ぼかした回答を表示",
    editKey: "良い方の回答を編集", undoKey: "直前の判定を元に戻す",
    answer: "回答", answer1: "1番目の回答", answer2: "2番目の回答", answerN: "回答 {n}",
    rateHow: "印の付いた項目に数字キーで点を付けます。Backspace で戻り、Enter で確定します。", rateOf: "{dimension}、回答 {n}", judge: "判定する",
    rankHow: "良い順に回答の番号を押します。= で次の回答を同順位に、Backspace で一つ戻り、Enter で確定します。",
    rankOf: "回答 {n}: {rank} 位", rankNone: "回答 {n}: 順位なし", rankTie: "次を同順位に", rankBack: "一つ戻る",
    user: "ユーザー", assistant: "アシスタント", system: "システム",
    progress: "{items} 件中 {done} 件完了", loading: "読み込み中 …", empty: "今は判定する項目がありません",
    emptyWhy: "すべて判定済みか、他の人が担当しています。自動で再確認します。",
    trialFailed: "試験に合格しませんでした", trialFailedWhy: "プロジェクトの責任者に相談してください。",
    trialOn: "試験の途中です", trialOnWhy: "手元の項目を終えてください。", cap: "今日はここまでです",
    capWhy: "一日の上限に達しました。明日また続けてください。", closed: "プロジェクトは終了しました", closedWhy: "これ以上の項目はありません。",
    paused: "一時停止中です", pausedWhy: "プロジェクトの責任者に相談してください。これまでの判定は保存されています。",
    noProject: "プロジェクトがまだありません", noProjectWhy: "`workbench ask NAME` で比較を追加してください。",
    notSaved: "未保存: {n} 件。{error}。このブラウザに保存され、再送されます。", unreachable: "サーバーに接続できません",
    right: "正解です。", wrong: "期待された答えと異なります。", refused: "保存されませんでした: {error}", trial: "試験項目です。期待された答えをお知らせします。",
    late: "時間切れの後に他の人が判定しました。保存されますが、使われません。",
    cannotFill: "次の項目を取得できません: {error}。再試行します。", cannotStart: "サーバーに接続できません: {error}。再試行します。",
    cannotHistory: "判定を読み込めません: {error}", veiled: "{warning} {key} を押すと回答を表示します。",
    tooDifferent: "回答の違いが大きすぎて単語単位で比較できません。", shared: "… 共通の {n} 語 …",
    again: "この項目は判定済みです。新しい判定が前の判定を置き換えます。", nothingToUndo: "元に戻せる判定がありません。以前のものは「自分の判定」にあります。",
    taken: "「{key}」はすでに「{action}」のキーです。", newGuideline: "ガイドラインが変わりました。続ける前に読んでください。",
    loggedOut: "ログアウトしています。判定はこのブラウザに保存されています。続けるにはログインしてください。", logIn: "ログイン", logOut: "ログアウト",
    byProvider: "組織のアカウントでログイン",
    providerUnknown: "組織では確認できましたが、ここに有効なアカウントがありません。プロジェクトの責任者に相談してください。",
    providerUnproved: "組織による本人確認ができなかったか、時間切れです。もう一度お試しください。",
    providerUnreachable: "組織のログインに接続できません。もう一度試すか、パスワードを使ってください。",
    name: "名前", password: "パスワード", lead: "責任者のページ", drift: "変化", returned: "差し戻し: {reason}",
    arena: "アリーナ", arenaAsk: "プロンプト", arenaGo: "二つのモデルに回答させる", arenaNames: "保存しました。1番目: {first}、2番目: {second}。",
    arenaBroken: "回答が途切れました: {error}。もう一度お試しください。", unwanted: "話題「{topic}」をこれ以上表示しない",
    avoided: "「{topic}」は今後表示されません。元に戻すには責任者に相談してください。",
    notAvoided: "話題はまだ表示されます: {error}。その話題の項目をスキップして、もう一度お試しください。",
  },
};

const language = navigator.languages.map((each) => each.slice(0, 2)).find((each) => each in WORDS) ?? "en";

export const languages = () => WORDS;

export function t(name, values = {}) {
  const text = WORDS[language][name] ?? name;
  return text.replace(/\{(\w+)\}/g, (whole, key) => values[key] ?? whole);
}

// Elements that say what they are called: data-t their text, data-label their name for screen readers.
export function translate(root) {
  document.documentElement.lang = language;
  for (const node of root.querySelectorAll("[data-t]")) node.firstChild.textContent = t(node.dataset.t);
  for (const node of root.querySelectorAll("[data-label]")) node.setAttribute("aria-label", t(node.dataset.label));
}
