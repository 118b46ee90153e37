"""Words that are no names: what clinical English says in lower case, eponyms, and what leads names.

Name recognisers take "Sigmoid", "Polyp-" and "mm" for people; these lists keep them in the report.
A list errs to one side only: a word that is missing here is removed when a recogniser takes it for
a name, and a word that is here is still removed beside a title, an initial or a given name.
"""

from __future__ import annotations

import re

__all__ = [
    "ABBREVIATIONS",
    "EPONYMS",
    "FUNCTION_WORDS",
    "PARTICLES",
    "PREFIXES",
    "TERMS_IN_USE",
    "TITLES",
    "is_plain_word",
]


def _set(words: str) -> frozenset[str]:
    return frozenset(words.split())


TITLES = (
    r"(?:drs?|doctor|prof(?:essor)?|mr|mrs|ms|miss|mx|herrn?|frau|madame|monsieur|sir|dame|lord"
    r"|lady|sister|sr|matron|nurse|s/?n|rn|registrar|consultant(?! (?:gastro|surg|phys|endo))"
    r"|physician|surgeon|endoscopist|rev(?:erend)?|cllr|councillor|mme|mlle|señora?|signora?|dra)"
)
PARTICLES = _set(
    """
    abu af al av ben bin da das de del della den der di dos du e el i ibn la le mac mc st ten
    ter und van vom von y zu zum zur
    """
)
# What a surname begins with that is written together, apart or with an apostrophe.
PREFIXES = (
    *("fitz", "vande", "saint", "della", "delle", "mac", "van", "von", "den", "der", "del", "des"),
    *("dos", "abu", "ibn", "bin", "ter", "ten", "mc", "de", "di", "da", "du", "la", "le", "el"),
    *("al", "st", "o"),
)
# Two letters that say something in a report; other names of two letters go in any case.
ABBREVIATIONS = _set(
    """
    ac ad ai am as at ba bd be bm bp by ca cc cd cf cm cs ct dc dr eg er et ex fb ft ga gi go gp hb
    he hf hp hr hx ib ic id ie if ii im in io ip is it iv kg lb ld lt mc md me mg ml mm mr ms my na
    nb nd ng no np ns nt oa od of ok on op or oz pa pm po pr ps pt pv px qd ra rf rn rx sc sd si sm
    sp sr ss st sx tb td th ti to tx uc uk up us vi vs we wt xi xr
    """
)
FUNCTION_WORDS = _set(
    """
    a about advised after again agreed all also am an and another any are as asked at attended
    aware be because been before being both but by can carried consented could date did
    discussed do does done due during each explained feels felt for from further given had happy
    has have he her here him his how i if in informed into is it its later may might more most
    name no none nor not noted now of on once only or other our out over own per performed
    present presents recommends requested requests reviewed said same saw see seen she should
    signature since so some such suggested suggests than that the their them then there these
    they thinks this those through time to today told under until up us very via was we were
    what when where whether which while who will wishes with within without would yes you your
    """
)
EPONYMS = _set(
    """
    amsterdam angeles barrett barretts bauhin baylor bethesda billroth blatchford boston
    bradshaw brunner brunners buscopan cameron cowden crohn crohns dieulafoy dukes endocuff
    forrest fujifilm fujinon gardner giemsa gram haggitt hartmann hartmanns harvey hill hodgkin
    hodgkins houston ivor jeghers kikuchi kudo kudos lewis los lugol lugols lynch mallory mayo
    meckel meckels montreal nancy neelsen nissen oddi olympus paris pentax peutz peyer peyers
    prague rockall rome roth rutgeerts sano schatzki scopeguide spigelman spot storz tokyo
    treitz trendelenburg truelove turcot vater vienna weiss whipple witts zenker zenkers ziehl
    """
)
# What the report reader needs and recognisers like to take for somebody.
TERMS_IN_USE = (
    # Sizes, classes, dilutions.
    re.compile(
        r"\b\d+(?:\.\d+)?\s?(?:x\s?\d+(?:\.\d+)?\s?){0,2}(?:mm|cm|ml|mg|mcg)\b"
        r"|\b(?:NICE|JNET|Kudo|Sano|Paris|Haggitt|Forrest|Mayo|UCEIS|BBPS)(?:'s)?\b[\s:-]{0,2}"
        r"(?:(?:type|class|grade|score)\s)?(?:0[- ]?)?(?:[IV]{1,3}[a-zA-Z]{0,2}|\d\w?)?\b"
        r"|\b0-I{1,3}(?:[abcps]|sp)?(?:\s?\+\s?I{1,3}[abc]?)?\b|\b1:\d+(?:,?000|k)\b",
        re.IGNORECASE,
    ),
    # Eponyms that stand for a disease, a place in the bowel or a tool.
    re.compile(
        r"\b(?:barrett'?s?(?:['’]s)?\s+(?:o?esophag\w*|mucosa|segment|epithelium|lesion|surveillance)"
        r"|crohn(?:['’]?s)?\s+(?:disease|colitis|ileitis|ulcer\w*)"
        r"|paris\s*(?:classification|class|type|is\b|ip\b|isp\b|i{1,3}[abc]?\b|0)"
        r"|kudo(?:['’]?s)?\s*(?:type|pit|class\w*|[iv1-5]+[slni]?\b)"
        r"|sano(?:['’]?s)?\s*(?:type|capillary|class\w*|[i1-3]+[ab]?\b)"
        r"|hartmann(?:['’]?s)?\s+(?:procedure|pouch|stump|operation|solution)"
        r"|(?:non[- ])?hodgkin(?:['’]?s)?\s+(?:lymphoma|disease)"
        r"|lynch\s+syndrome|peutz[- ]jeghers|forrest\s+(?:class\w*|[i1-3]+[abc]?\b)"
        r"|mallory[- ]weiss|boston\s+(?:bowel|score|scale|prep\w*|scientific|\d)"
        r"|mayo\s+(?:score|\d)|roth\s+net|rutgeerts\s+(?:score|i?\d))",
        re.IGNORECASE,
    ),
)
_PLAIN = _set(
    """
    abdomen abdominal ablation abnormal abnormality above absent accident acute adalimumab
    adenoma adenomas adenomatous adequate adhesions adjacent adrenaline adult advanced age
    amenable anaemia anal analgesia anastamosis anastomosis angiodysplasia angle annual
    antibiotics antrum anus apc aphthous appear appearance appearances appeared appears
    appendectomy appendiceal appendix applied approx approximately area areas argon around
    arteriovenous ascending ascites aspirin assessment assistance atrophic atrophy attempt
    author autoimmune azathioprine background band barium base bed benign best better bile
    biopsied biopsies biopsy bisacodyl black bleed bleeding bleeds blood bloods blot blue body
    border borders bowel brief bright brown bulky bx ca caecal caecum calprotectin canal cancer
    cannot cap capillary carcinoid carcinoma cardiac care carpet case cauterised cauterized cc
    cecal cecum central centre change changes check chronic circumference circumferential
    citramag classification clean clear clearly clinic clinical clip clipped clips close closed
    clot coagulation coeliac cold colitis collected colon colonic colonoscope colonoscopy
    colorectal colour colours comfort comfortable comment comments complete completed completely
    complication complications concern conclusion condition confirmed congested consent
    consistent consultant contact contrast control copy cough could coverage cramps crypt
    cryptitis curative cuts cyst cysts dark day days deep deeper deformity dense department
    depressed depression descending described diagnosis diagnostic diameter diarrhoea dictated
    diet difficult difficulty diffuse diminutive discharge discharged disease distal distended
    distension distinct diverticula diverticular diverticulitis diverticulosis diverticulum dose
    dr duodenal duodenitis duodenum dye dysplasia dysplastic early easily easy edge edges effect
    ektatic elderly elective electronically elevated emergency emr en endo endocuff endoscope
    endoscopic endoscopically endoscopist endoscopy entire epinephrine episode episodes
    epithelium erosion erosions erythema erythematous esd esophagus even evidence exam
    examination examined excellent excised excision exclude extending extensive extent external
    eye faecal faeces failed fair familial family fap farther fat father fatigue fatty features
    female fentanyl few fibre fibrosis fibrotic fice finding findings first fit flat flexible
    flexure flexures fluid flumazenil flush focal foci fold folds follow followup food forceps
    foreign fragments frequent friable from full fundus ga gastric gastritis gastroenterologist
    gastroenterology gastroscope gastroscopy general gentleman giant given gland glands glucagon
    good gp grade granular granularity granulation great green grey group growth guided
    haemangioma haematochezia haemorrhage haemorrhagic haemorrhoid haemorrhoids haemostasis
    haemostatic half head healed healing health healthy helicobacter hemorrhoids hepatic hereby
    hernia hiatal hiatus high histological histology history homogeneous hospital hot hour hours
    hyoscine hyperaemia hyperaemic hyperplastic i iba ibd icv identified ii iii ileal ileitis
    ileo ileocaecal ileocecal ileocolonic ileoscopy ileum image images imaging impacted
    impression inadequate incision incomplete incontinence indeterminate indicated indication
    indications indigo indurated infection infective inferior infiltration inflamed inflammation
    inflammatory inflammed inflated injected injection inner insertion insufflation intact
    intermittent internal intestinal intestine intra intraepithelial intubated intubation
    invasion invasive iron irregular irregularity irritable ischaemic islands isp itt iv jejunum
    jnet junction juvenile lady large larger largest last lateral lavage leaking least left
    length lesion lesions less leukaemia level lift lifted lifting likely limit limited limits
    line linear lip lipoma lipomas list liver lobulated localised location long longitudinal
    look looked looking looks loop loops loss low lower lumen lumenal luminal lymph lymphocytic
    lymphoid lymphoma macroscopic mainly male malignancy malignant man managed management margin
    margins marked markedly marker marking mass massive mature max mdt measured measures
    measuring medial medical medication medications medicine medium melaena melanosis mesalazine
    metal metastasis methylene mg microscopic mid midazolam middle mild mildly minimal minor
    minute mitotic mixed ml mm moderate moderately monitor month months morning mother mouth
    moved moviprep mr mri mrs mucosa mucosal mucous mucus multiple mural naloxone narrow
    narrowed narrowing nbi near neck necrosis necrotic needle negative neo neoplasia neoplasm
    neoplastic net new next nice night nodular nodule nodules non normal normally number
    numerous nurse obscured obstructing obstruction obtained obvious occasional occult oedema
    oedematous oesophageal oesophagitis oesophagus ogd old omeprazole one opening opposite
    orifice oval overlying overnight pain painful pale palpable pan pancolitis pandiverticulosis
    paracetamol part partial partially particularly pass passed patch patches patchy patent path
    pathology patient patients pattern pedicle pedunculated per perforation perianal pethidine
    physician picolax piece piecemeal pieces pink pit pits place placed plan plaque plaques
    plasma please plenvu point polyp polypectomies polypectomy polypoid polyposis polyps pool
    poor poorly portal position possible possibly post posterior pouch prep preparation
    prescribed presence previous previously primary prior probably problem procedure proctitis
    proctoscopy prolapse prominent propofol prostate proximal pruritus pseudopolyp pseudopolyps
    pt pulled pulsatile purple putative quadrant quality quiescent radiation radiotherapy raised
    random randomised rare rather reached rebook rebooking recent recently recommend recommended
    rectal recto rectosigmoid rectum recurrence recurrent red redness reduced refer referral
    referred reflux refused region regular relatively remainder remaining removal removed repeat
    report reported resect resected resection residual result results retained retrieval
    retrieved retroflex retroflexed retroflexion retroversion review right ring room rose round
    routine sample samples sano satisfactory scale scar scarred scarring scattered scheduled
    scope score screening second secondary section sedation seen segment segmental segments semi
    senna sent serrated sessile severe severely severity sex shallow shape sharp short shown
    side sigmoid sigmoidoscopy sign signed significant signs similar single site sites size
    sized skin slight slightly slow small smaller smooth snare snared soft soiling solid
    solitary solution specimen specimens sphincter splenic spontaneous spot spots spray squamous
    stable staff stalk standard staple stapled started status steep stenosis stent stercoral
    stomach stool stools stopped straight streak stricture strictures strong subepithelial
    submucosa submucosal suboptimal subtle subtotal successful superficial superior supine
    surface surgeon surgery surgical surrounding surveillance suspected suspicion suspicious
    sutures swelling symptomatic symptoms syndrome tags take taken target tattoo tattooed team
    technique telangiectasia ten tender term terminal test theatre thick thickened thickening
    thin third three throughout ti tight tiny tip tissue tolerated tone top tortuous total touch
    towards tract transverse traumatised treat treated treatment trial tube tubular
    tubulovillous tumor tumour turn twisted two type typed typical ulcer ulcerated ulceration
    ulcerations ulcerative ulcers unable uncertain unclear uncomplicated underlying unit units
    unlikely unremarkable unsuccessful upper urgent use used usual v valve variceal varices
    vascular vedolizumab vein veins verge verified vessel vessels view views villous visible
    visual visualised volume vomiting wall ward warfarin wash washed washing washings watch
    water week weeks weight well white whole wide widespread winding withdrawal woman worse year
    years yellow yesterday young zone
    """
)


def is_plain_word(word: str) -> bool:
    """Whether a word, whatever its case, is ordinary in a report rather than a name."""
    plain = word.casefold().strip("'’.-,")
    return plain in _PLAIN or plain in FUNCTION_WORDS or plain.removesuffix("s") in _PLAIN
