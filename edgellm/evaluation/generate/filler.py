"""Filler: long, dull, varied text in English and Chinese without a number in digits, in which facts are hidden.

    sentences = filler(draw, "en", 500)       # 500 words or a little more, no sentence twice

The text is ours: patterns of sentences whose gaps are filled by chance.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from edgellm.evaluation.generate.seeded_random import SeededRandom

_ENGLISH_PATTERNS = (
    "{Person} walked to {place} because {reason}.",
    "In the {season}, {place} is {quality}, and {person} likes to sit there with {thing}.",
    "{Person} and {person2} talked about {topic} until {moment}.",
    "Nobody at {place} remembered who had left {thing} there.",
    "When {moment} came, {person} put {thing} away and thought about {topic}.",
    "The road to {place} is {road} after rain.",
    "{Person} once wrote a letter about {topic}, but never sent it.",
    "It was {weather} that day, so {person} stayed near {place}.",
    "{Person2} would rather talk about {topic} than about {topic2}.",
    "Some people come to {place} only to see {thing}.",
    "Before {moment}, {person} had already cleaned {thing}.",
    "{Person} learned about {topic} from an old book that lay in {place}.",
    "They met at {place}, and {person2} brought {thing} although {reason}.",
    "Every {season}, {person} repairs {thing} and tells the neighbours about {topic}.",
    "Because {reason}, nobody spoke about {topic} at {place}.",
    "{Person} gave {thing} to {person2}, who took it to {place}.",
)
_ENGLISH_WORDS: dict[str, tuple[str, ...]] = {
    "person": (
        "the baker", "Mrs. Hale", "the young teacher", "Oskar", "the postman", "my uncle", "the gardener", "Lucia",
        "the doctor's son", "an old sailor", "the librarian", "Tomas", "the tall carpenter", "a visitor", "Aunt Vera",
        "the tailor", "the night watchman", "Ingrid",
    ),
    "place": (
        "the old mill", "the harbour", "the market hall", "the railway station", "the chapel", "the orchard",
        "the village school", "the wooden bridge", "the bakery", "the lighthouse", "the town library", "the small park",
        "the ferry landing", "the stone quarry", "the tea house", "the sheep meadow", "the theatre", "the glasshouse",
    ),
    "thing": (
        "a wicker basket", "an umbrella", "the brass telescope", "a sack of flour", "two folding chairs", "a worn map",
        "the copper kettle", "a box of candles", "a bicycle pump", "the long ladder", "a woollen blanket", "a whistle",
        "the painted sign", "a jar of honey", "a bundle of newspapers", "the garden hose", "a lantern", "a chess board",
    ),
    "topic": (
        "the weather", "the price of bread", "the new ferry", "bees", "the school play", "old songs", "the harvest",
        "stamps", "the choir", "the history of the town", "fishing", "the broken clock", "apple trees", "long journeys",
        "the football match", "clouds", "handwriting", "the art of patience",
    ),
    "reason": (
        "the bus was late", "the shop had closed early", "it was too hot inside", "a friend had asked for help",
        "the music was loud", "the river had risen", "there was nothing else to do", "the children were asleep",
        "the doctor had advised it", "the bread was not ready yet", "the wind had changed", "the key did not fit",
        "everyone was tired", "the lamp had gone out", "the train did not stop there", "the soup was still cooking",
    ),
    "season": ("spring", "early summer", "late summer", "autumn", "winter", "rainy season"),
    "moment": (
        "noon", "the evening", "the first frost", "sunset", "the end of the concert", "breakfast", "the last train",
        "the afternoon break", "nightfall", "the morning bell", "the holidays", "market day",
    ),
    "quality": ("quiet", "crowded", "pleasant", "strangely still", "full of birds", "almost empty", "bright", "green"),
    "weather": ("windy", "grey", "warm", "foggy", "colder than usual", "wet", "bright"),
    "road": ("muddy", "slippery", "hard to walk on", "full of puddles", "soft", "quieter than usual"),
}  # fmt: skip
_CHINESE_PATTERNS = (
    "因为{reason}，{person}走到了{place}。",
    "每到{season}，{place}总是{quality}，{person}喜欢带着{thing}坐在那里。",
    "{person}和{person2}谈论{topic}，一直谈到{moment}。",
    "谁也不记得是谁把{thing}忘在了{place}。",
    "到了{moment}，{person}收起{thing}，心里想着{topic}。",
    "下过雨以后，去{place}的路{road}。",
    "{person}写过一封关于{topic}的信，但一直没有寄出去。",
    "那天{weather}，所以{person}没有离开{place}。",
    "{person2}说，{topic}比{topic2}更重要。",
    "有些人来{place}，只是为了看看{thing}。",
    "在{moment}之前，{person}已经把{thing}擦干净了。",
    "{person}从{place}的一本旧书里知道了{topic}的事情。",
    "他们在{place}见面，虽然{reason}，{person2}还是带来了{thing}。",
    "每年{season}，{person}都要修理{thing}，还要和邻居聊一聊{topic}。",
    "由于{reason}，在{place}没有人提起{topic}。",
    "{person}把{thing}送给了{person2}，后来它被带到了{place}。",
)
_CHINESE_WORDS: dict[str, tuple[str, ...]] = {
    "person": (
        "面包师傅", "何太太", "年轻的老师", "老邮差", "我的舅舅", "园丁", "秀兰", "医生的儿子", "一位老水手",
        "图书管理员", "志远", "高个子木匠", "一位客人", "姑妈", "裁缝", "守夜人", "文静", "渡船的老人",
    ),
    "place": (
        "旧磨坊", "码头", "菜市场", "火车站", "山上的小庙", "果园", "村里的学校", "木桥", "面包店", "灯塔", "镇图书馆",
        "小公园", "渡口", "采石场", "茶馆", "草场", "剧院", "花房",
    ),
    "thing": (
        "竹篮", "雨伞", "铜望远镜", "一袋面粉", "折叠椅", "旧地图", "铜水壶", "一盒蜡烛", "打气筒", "长梯子", "羊毛毯",
        "铁皮哨子", "彩色招牌", "一罐蜂蜜", "一捆报纸", "浇水的管子", "马灯", "棋盘",
    ),
    "topic": (
        "天气", "面包的价钱", "新来的渡船", "蜜蜂", "学校的演出", "老歌", "收成", "邮票", "合唱队", "镇子的历史",
        "钓鱼", "那座坏了的钟", "苹果树", "远方的旅行", "足球比赛", "云彩", "书法", "耐心",
    ),
    "reason": (
        "公共汽车晚点了", "商店关门太早", "屋里太热", "有朋友来访", "音乐声太大", "河水涨了", "没有别的事可做",
        "孩子们睡着了", "医生这样建议", "面包还没有烤好", "风向变了", "钥匙对不上", "大家都累了", "灯灭了",
        "火车在那里不停", "汤还没有煮好",
    ),
    "season": ("春天", "初夏", "夏末", "秋天", "冬天", "雨季"),
    "moment": (
        "中午", "傍晚", "午夜", "清晨", "黄昏", "周末", "月底", "年底", "午后", "深夜",
    ),
    "quality": ("很安静", "非常热闹", "很舒服", "出奇地静", "到处是鸟叫", "几乎没有人", "十分明亮", "绿油油的"),
    "weather": ("刮着大风", "阴沉沉的", "很暖和", "有大雾", "比平时冷", "下着小雨", "阳光很好"),
    "road": ("满是泥水", "又湿又滑", "很难走", "到处是水坑", "有些松软", "比平时安静"),
}  # fmt: skip
_TEXTS = {"en": (_ENGLISH_PATTERNS, _ENGLISH_WORDS), "zh": (_CHINESE_PATTERNS, _CHINESE_WORDS)}
_WORD = re.compile(r"[\u4e00-\u9fff]|[A-Za-z']+")


def length(text: str) -> int:
    """The length of a text in words; a Chinese character is one, and numbers and punctuation are none."""
    return len(_WORD.findall(text))


def filler(draw: SeededRandom, language: str, n_words: int) -> list[str]:
    """Different sentences of at least so many words together."""
    patterns, words = _TEXTS[language]
    sentences: dict[str, None] = {}
    total, last = 0, ""
    while total < n_words:
        pattern = draw.pick([each for each in patterns if each != last])
        sentence = _filled(draw, pattern, words)
        if sentence not in sentences:
            sentences[sentence], last = None, pattern
            total += length(sentence)
    return list(sentences)


def _filled(draw: SeededRandom, pattern: str, words: Mapping[str, Sequence[str]]) -> str:
    """A pattern with its gaps filled; `person` and `person2` differ, and so do the topics."""
    chosen = {key: draw.pick(values) for key, values in words.items()}
    chosen["person2"], chosen["topic2"] = (
        draw.pick([each for each in words[key] if each != chosen[key]]) for key in ("person", "topic")
    )
    chosen |= {key.capitalize(): chosen[key][0].upper() + chosen[key][1:] for key in ("person", "person2")}
    return pattern.format_map(chosen)
