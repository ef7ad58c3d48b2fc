"""Words of English and Chinese that decide whether two questions can be the same: data for `facts`.

AXES["maximum"]  ->  ("maximum minimum average", 0)

An axis is a line of alternatives between `|`: a question about one of them is not a question about another. The lists
are general vocabulary; a word that no list has is compared as it stands.
"""

from __future__ import annotations


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


# Words without a meaning of their own, and what politeness adds to a question.
STOP = frozenset(
    _words("""
a an the this that these those there here it its they them their he she his her we us our you your i my me mine is
are was were be been being am do does did doing done have has had having can could should would will shall may might
must of in on at to for from by with into onto as and or but if so then than when while what which who whom whose
where why how much many long often far any some such each own same such too also just very really exactly please
kindly tell explain describe give show let know want need like wish would try help question say mean means get got
way ways step steps process procedure method instruction instructions guide possible able there thing things about
up out off over back again now currently right hello hi thanks thank ok okay actually basically system team kind
sort type happen happens take takes until through via per when's one ones own case order correct proper properly
correctly best simple simply quickly briefly
""")
)
# What a paraphrase may add without asking for something else.
GENERIC = frozenset(
    _words("""
work works working use used using usage function operate suitable available supported option options feature perform
run running happen occur apply allowed permitted place information detail details user device application whole
complete full
""")
)
# Words of other languages: questions in those are only compared as they stand.
FOREIGN = frozenset(
    _words("""
der die das und ist nicht wie ein eine einen ich wo warum mit für auf den dem kann man wird le les des est une que
pas je vous dans pour avec du quel quelle el los las es por para cómo cuál dónde una del qué il lo gli che di perché
è della het een niet hoe van wat ik voor op waar de och att är hur inte det som um não como uma os jak czy nie jest
""")
)
NEGATIONS = frozenset(
    _words("""
not no never none nobody nothing neither nor without cannot lack lacks lacking unable fail fails failed failing
except excluding exclude excludes unless besides miss missed missing refuse refuses impossible prohibited forbidden
""")
)
# What means the same only together: who has forgotten a login asks how to reset a password.
_LOGIN = "log-?in|logon|sign-?in|credentials|passcode|passphrase"
TOGETHER = {
    rf"(?i)\b(forgot|forgotten|forget|lost|reset|recover)((?: (?:my|your|the|our))?) (?:{_LOGIN})\b": r"\1\2 password"
}
# One meaning a line.
SYNONYMS = """
maximum max most
minimum min least
remove delete erase deletion removal
change alter modify edit modification set adjust configure
replace swap exchange substitute
start begin launch boot startup commence
finish complete
buy purchase bought
choose select pick
create make build generate made built
fix repair mend
show display view
use utilize utilise usage used
permit allow allowed permitted
require required mandatory necessary obligatory requirement
price cost fee
phone telephone
mobile cellphone smartphone
picture image photo photograph
error fault failure
monitor screen
fast quick rapid rapidly
big large huge
small little tiny
company firm enterprise
employee worker staff
location address locate located situated find found
enable activate
disable deactivate
approve accept
reject deny refuse decline
prohibit forbid
directory folder
contact reach
update upgrade
previous earlier former prior
reason cause
return give-back refund
store save saved stored keep kept
send sent ship shipped
get obtain receive
fall drop decrease decline reduction reduce decreased fell
rise increase grow growth raise rose grew
summary summarize summarise summarisation summarization
translate translation
licence license
colour color
centre center
user people person
shut close
login signin logon
signup register registration
holiday vacation
car automobile
laptop notebook
doctor physician
length duration
weight heavy weigh weighs
height tall high
width wide
depth deep
size big
reset forgot forgotten forget
cancel terminate stop
freeze lock
support supported compatible
format formats
document documents paper
manual handbook
meaning means
supplier vendor
customer client
invoice bill
salary wage
turn switch
lecturer teacher
quantity amount
"""
# Alternatives that exclude each other.
AXES = """
maximum max most largest biggest highest upper longest|minimum min least smallest lowest lower shortest fewest|average
maximum|minimum|average mean median|default standard preset|total overall sum|current present actual
first initial|second|third|last final|next|previous earlier former prior
oldest earliest|newest latest
before until prior|after since afterwards|during while
more above over exceeding greater|fewer less below under
larger bigger|smaller
longer|shorter
higher|lower
heavier|lighter
more larger longer higher heavier|fewer less smaller shorter lower lighter
better|worse
best|worst
faster|slower
cheaper|dearer
cheapest|dearest
enable activate|disable deactivate
install setup|uninstall remove delete deinstall
mount|unmount
open|close shut closed
lock locked freeze block|unlock unlocked unfreeze unblock
start begin launch boot|stop end finish terminate halt quit exit|restart reboot|pause suspend|resume continue
increase rise grow raise growth|decrease fall drop decline reduce reduction lower shrink
import|export
upload|download
input|output
inside within indoors indoor internal inner|outside outdoors outdoor external outer
in|outside
upstream|downstream
advantage advantages benefit pro pros strength|disadvantage disadvantages drawback con cons weakness
approve accept allow permit grant confirm|reject refuse deny decline forbid prohibit
buy purchase|sell|rent|lease|borrow|lend
send|receive
sender|receiver recipient
employer|employee
encrypt|decrypt
compress zip|decompress extract unzip
encode|decode
push|pull
read|write
add insert append|remove delete subtract|replace|update change
create|delete destroy
save|discard
connect|disconnect
attach|detach
login signin logon|logout signout logoff
arrive arrival|depart departure leave
entrance entry|exit
win|lose
left|right
top|bottom
front|rear
north|south|east|west
hot warm|cold cool
light|dark
public|private
local|remote
manual manually|automatic automatically
online|offline
new|old used
full|empty
free|paid
legal|illegal
valid|invalid
visible|invisible hidden
true|false
success successful|failure
positive|negative
even|odd
horizontal|vertical
absolute|relative
permanent permanently|temporary temporarily
mandatory required|optional
upgrade|downgrade
promote|demote
backup|restore
master primary main|secondary slave
parent|child
male man men|female woman women
morning|afternoon|evening|night
morning am|pm
weekday weekdays|weekend weekends
summer|winter|spring|autumn
breakfast|lunch|dinner
past|future
yesterday|today|tomorrow
hourly|daily|weekly|fortnightly|monthly|quarterly|yearly annual annually
gross|net
debit|credit
income revenue|expense expenses expenditure
profit|loss
debtor|creditor
internal|external
domestic|international
domestic|foreign
hardware|software
wired|wireless
client|server
source origin|destination target
singular|plural
all every entire whole|single one
all|any
always|sometimes|never
alone|together
with|without
http|https
imap|imaps
pop|pops
ftp|ftps|sftp
ldap|ldaps
ssh|telnet
tcp|udp
red|green|blue|yellow|black|white|orange|purple|pink|brown|grey gray
gold|silver|platinum|bronze|basic|premium|standard|professional|enterprise|starter|deluxe
beginner|advanced
"""
UNITS = """
second seconds sec secs
millisecond milliseconds ms
minute minutes min mins
hour hours hr hrs
day days daily
week weeks weekly
month months monthly
quarter quarters quarterly
year years yearly annual annually annum
night nights
metre metres meter meters
centimetre centimetres centimeter centimeters cm
millimetre millimetres millimeter millimeters mm
kilometre kilometres kilometer kilometers km kms
mile miles mi
yard yards yd
foot feet ft
inch inches
m2 sqm
ft2 sqft
m3
ft3
gram grams gramme grammes
kilogram kilograms kg kgs kilo kilos
milligram milligrams mg
tonne tonnes ton tons
pound pounds lb lbs
ounce ounces oz
litre litres liter liters
millilitre millilitres milliliter milliliters ml
gallon gallons gal
pint pints
celsius centigrade
fahrenheit
kelvin
byte bytes
kilobyte kilobytes kb kib
megabyte megabytes mb mib
gigabyte gigabytes gb gib
terabyte terabytes tb tib
bit bits
hertz hz
khz
mhz
ghz
watt watts
kilowatt kilowatts kw
volt volts
ampere amperes amp amps
joule joules
calorie calories kcal
bar bars
psi
pascal pascals
euro euros eur
dollar dollars usd
cent cents
yen jpy
yuan rmb cny
franc francs chf
percent percentage
degree degrees
mph
kmh
rpm
dpi
pixel pixels px
"""
LANGUAGES = frozenset(
    _words("""
english german french spanish italian portuguese dutch russian polish czech ukrainian greek turkish arabic hebrew
hindi chinese mandarin cantonese japanese korean vietnamese thai swedish norwegian danish finnish hungarian romanian
bulgarian latin esperanto indonesian malay persian bengali urdu python java javascript typescript rust golang ruby
perl haskell bash sql html markdown json yaml xml csv
""")
)
MONTHS = (
    "january jan|february feb|march|april apr|may|june jun|july jul|august aug|september sep sept|october oct|"
    "november nov|december dec"
)
CARDINALS = _words("""
zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen
eighteen nineteen
""")
TENS = _words("""
twenty thirty forty fifty sixty seventy eighty ninety
""")
ORDINALS = _words("""
first second third fourth fifth sixth seventh eighth ninth tenth eleventh twelfth thirteenth fourteenth fifteenth
sixteenth seventeenth eighteenth nineteenth twentieth
""")
OTHER_NUMBERS = {"once": "1", "twice": "2", "thrice": "3", "double": "2", "triple": "3", "half": "0.5", "dozen": "12",
                 "hundred": "100", "thousand": "1000", "million": "1000000", "single": "1", "both": "2"}  # fmt: skip
CONTRACTIONS = {
    "what's": "what is", "where's": "where is", "who's": "who is", "how's": "how is", "when's": "when is",
    "it's": "it is", "that's": "that is", "there's": "there is", "i'd": "i would", "i'm": "i am", "i've": "i have",
    "can't": "can not", "won't": "will not", "cannot": "can not", "let's": "let us",
}  # fmt: skip

# Chinese: what asks, what is polite, and what only joins.
CHINESE_YES_NO = _words("""
是不是 能不能 可不可以 有没有 要不要 会不会 行不行 对不对 好不好 需不需要 该不该 可否 能否 是否 会否 有无
""")
CHINESE_FILLERS = _words("""
请问 请帮我 请帮忙 请你 麻烦你 麻烦 帮我 帮忙 告诉我 我想知道 想知道 我想 我要 我需要 想要 你们
我们 他们 你好 您好 谢谢 一下 一些 一个 这个 那个 某个 这台 那台 这款 那款 这种 那种 一共 总共
到底
究竟 应该 可以 能够 需要 想要 必须 可能 进行 情况下 的时候 时候 应当 怎么办 怎么做 怎么样 办
具体 帮 我 你 您 他 她 它 这 那 的 了 着 吧 啊 呀 呢 吗 么 是 在 把 将 被 很 和 与 及 或
就 也
都 还 请 能 某 叫 有
""")
# Dropped only outside of these words.
CHINESE_AUXILIARY = r"会(?![议员计场面话徽])(?<![机社协大工晚宴开])"
CHINESE_KINDS = {
    "who": "谁 哪位 哪个人 什么人 何人",
    "when": "什么时候 什么时间 何时 几点 哪天 哪一天 哪年 哪一年 几号 几月 哪个月",
    "where": "什么地方 哪里 哪儿 何处 在哪 哪个目录 哪个文件夹 哪个位置",
    "why": "为什么 为何 为啥 怎么会 什么原因 原因 理由",
    "how": "怎么 如何 怎样 咋样 咋 方法 步骤 方式",
    "count": "多少 几",
    "what": "什么 哪些 哪个 哪种 哪几 啥 何",
}
# What a measured question asks for: "how heavy" is "which weight".
CHINESE_MEASURES = {
    "多重": "重量", "多长时间": "时长", "多久": "时长", "多大": "大小", "多高": "高度", "多长": "长度", "多宽": "宽度",
    "多深": "深度", "多远": "距离", "多快": "速度", "多厚": "厚度", "多贵": "价格", "多少钱": "价格", "什么价": "价格",
    "多老": "年龄", "几岁": "年龄", "多大年纪": "年龄",
}  # fmt: skip
CHINESE_NOT_NEGATED = _words("""
不过 不同 不仅 不但 不少 不管 不断 差不多 无论 无线 非常 未来 别的 区别 特别 级别 类别 性别
个别 分别 识别 别名 别墅 莫斯科 没关系 无人机 不锈钢 不动产 非洲 要不
""")
CHINESE_NEGATIONS = _words("""
不 没 无 未 非 别 勿 莫 禁止 除了 除外 以外 之外 除 缺少 失败 忘
""")
CHINESE_SYNONYMS = """
全部 所有
手册 说明书 指南
支付 付款 付费 付钱
更换 替换 换
默认 缺省 预设
设备 仪器 机器 装置
客服 客户服务 售后服务
会议纪要 会议记录
总结 概括 摘要 归纳
密码 口令
删除 移除 去掉 清除
修改 更改 改变 变更 改
重置 忘记 忘了
下降 降低 减少 降
上升 上涨 增加 增长 提高 升高
价格 价钱 费用 金额
时长 时间
重量 重
大小 尺寸
目录 文件夹
位置 地址 地点
电话 手机
电脑 计算机
图片 图像 照片
软件 程序 应用
购买 买
退货 退
员工 职员 职工
公司 企业
酒店 宾馆 住宿 旅馆
出差 差旅
自己 自行 自
名字 名称 姓名
联系 联络
错误 故障 出错
启动 开机
登录 登陆
注册 报名
查看 查询 看
使用 用 利用
允许 准许
支持 兼容
最高 上限
最低 下限
放 存放 存 保存 存储
发送 发 寄
收到 接收 收
检查 检测 核对
安装 装
升级 更新
备份 备存
网络 网
账号 账户 帐号 帐户
申请 请求
截止 到期
"""
CHINESE_AXES = """
前 之前 以前 事前|后 之后 以后 事后|期间
第一|第二|第三|最后
首|末 尾
上一|下一
最大 最多 最高 上限 最长|最小 最少 最低 下限 最短|平均|默认 缺省|总共 合计 总数|当前
大于 多于 超过 高于|小于 少于 低于 不足|等于
以上|以下
更多|更少
优点 优势 好处|缺点 劣势 坏处
打开 开启 启用 激活|关闭 停用 禁用
启动 开始|停止 结束 终止|暂停|恢复 继续|重启
安装|卸载
增加 上升 提高 增长 上涨|减少 下降 降低 下跌
批准 同意 通过|否决 拒绝 驳回
允许|禁止
买 购买 采购|卖 出售 销售|租
进口|出口
导入|导出
上传|下载
输入|输出
室内|室外 户外
国内|国外 境外
内部|外部
发送 寄出|接收 收到
加密|解密
压缩|解压
连接|断开
登录|退出 注销
锁定|解锁
冻结|解冻
添加 新增|删除 移除
借入|借出
收入|支出
利润 盈利|亏损
公开 公共|私有 私人
本地|远程
手动|自动
在线|离线
有线|无线
永久|临时
必须 必填|可选 选填
有效|无效
成功|失败
旧版|新版
旧|新
男|女
左|右
东|南|西|北
快|慢
好|坏
热|冷
早上 上午|下午|晚上
春|夏|秋|冬
昨天|今天|明天
去年|今年|明年
上月 上个月|本月 这个月|下月 下个月
工作日|周末
每小时|每天 每日|每周 每星期|每月|每季度|每年
摄氏|华氏
所有 全部 列出|举一个 任一 任意
红|绿|蓝|黄|黑|白
金|银|铂|铜
基础|高级|专业|企业
税前|税后
含税|不含税
主|副
甲|乙|丙
供应商|客户
雇主|雇员
源|目标
英里|公里
售前|售中|售后|销售
白天|夜间
上班|下班
单程|往返
成人|儿童
"""
CHINESE_UNITS = _words("""
毫秒 秒钟 秒 分钟 小时 钟头 天 日 周 星期 个月 月 季度 年 夜 晚 公里 千米 英里 里 米 厘米
毫米 英尺 英寸 平方米 平方英尺 立方米 千克 公斤 克 毫克 吨 磅 盎司 升 毫升 加仑 摄氏度 华氏度
度 元
美元 欧元 日元 英镑 人民币 字节 页 次 台 人 个 件 条 种 份 倍 章 节 版 层 楼 号 点 岁 瓦
千瓦 伏 安 赫兹
""")
CHINESE_UNIT_NAMES = {"钟头": "小时", "秒钟": "秒", "日": "天", "星期": "周", "个月": "月", "千米": "公里",
                      "公斤": "千克", "夜": "晚", "人民币": "元"}  # fmt: skip
CHINESE_LANGUAGES = _words("""
英语 英文 德语 德文 法语 法文 西班牙语 西班牙文 意大利语 葡萄牙语 荷兰语 俄语 俄文 日语 日文 韩语
韩文 中文 汉语 阿拉伯语 泰语 越南语 希腊语 拉丁语 粤语 普通话 瑞典语 波兰语 土耳其语 印地语
""")
# What a paraphrase may add, as `GENERIC`.
CHINESE_GENERIC = frozenset(
    _words("""
支持 使用 放 提供 位于 存放 功能 用户 系统 方面 时 期 位置 地方 允许 列出 全部 个
""")
)
CHINESE_DIGITS = "零一二三四五六七八九"
