"""English words that decide whether two questions can be the same: data for `english`.

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
