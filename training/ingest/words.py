"""Words that are no names: what clinical English says in lower case, eponyms, and what leads names.

Name recognisers take "Sigmoid", "Polyp-" and "mm" for people; these lists keep them in the report.
A list errs to one side only: a word that is missing here is removed when a recogniser takes it for
a name, and a word that is here is still removed beside a title, an initial or a given name.
"""

from __future__ import annotations

import re

__all__ = ["EPONYMS", "EPONYM_IN_USE", "FUNCTION_WORDS", "PARTICLES", "TITLES", "is_plain_word"]


def _set(words: str) -> frozenset[str]:
    return frozenset(words.split())


TITLES = (
    r"(?:drs?|doctor|prof(?:essor)?|mr|mrs|ms|miss|mx|herrn?|frau|madame|monsieur|sir|dame|lord"
    r"|lady|sister|sr|matron|nurse|s/?n|rn|registrar|consultant(?! (?:gastro|surg|phys|endo))"
    r"|physician|surgeon|endoscopist)"
)
PARTICLES = _set(
    """
    abu af al av ben bin da das de del della den der di dos du e el i ibn la le mac mc st ten
    ter und van vom von y zu zum zur
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
# Where one of these stands like this it is the eponym even if the patient has the same name.
EPONYM_IN_USE = re.compile(
    r"\b(?:barrett'?s?(?:['’]s)?\s+(?:o?esophag\w*|mucosa|segment|epithelium|lesion|surveillance)"
    r"|crohn(?:['’]?s)?\s+(?:disease|colitis|ileitis|ulcer\w*)"
    r"|paris\s*(?:classification|class|type|is\b|ip\b|isp\b|i{1,3}[abc]?\b|0)"
    r"|kudo(?:['’]?s)?\s*(?:type|pit|class\w*|[iv1-5]+[slni]?\b)"
    r"|sano(?:['’]?s)?\s*(?:type|capillary|class\w*|[i1-3]+[ab]?\b)"
    r"|hartmann(?:['’]?s)?\s+(?:procedure|pouch|stump|operation|solution)"
    r"|(?:non[- ])?hodgkin(?:['’]?s)?\s+(?:lymphoma|disease)"
    r"|lynch\s+syndrome|peutz[- ]jeghers|forrest\s+(?:class\w*|[i1-3]+[abc]?\b)"
    r"|mallory[- ]weiss|boston\s+(?:bowel|score|scale|prep\w*|scientific|\d)|mayo\s+(?:score|\d)"
    r"|roth\s+net|rutgeerts\s+(?:score|i?\d))",
    re.IGNORECASE,
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
    biopsied biopsies biopsy black bleed bleeding bleeds blood bloods blot blue body border
    borders bowel brief bright brown bulky bx ca caecal caecum calprotectin canal cancer cannot
    cap capillary carcinoid carcinoma cardiac care carpet case cauterised cauterized cc cecal
    cecum central centre change changes check chronic circumference circumferential
    classification clean clear clearly clinic clinical clip clipped clips close closed clot
    coagulation coeliac cold colitis collected colon colonic colonoscope colonoscopy colorectal
    colour colours comfort comfortable comment comments complete completed completely
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
    flexure flexures fluid flush focal foci fold folds follow followup food forceps foreign
    fragments frequent friable from full fundus ga gastric gastritis gastroenterologist
    gastroenterology gastroscope gastroscopy general gentleman giant given gland glands good gp
    grade granular granularity granulation great green grey group growth guided haemangioma
    haematochezia haemorrhage haemorrhagic haemorrhoid haemorrhoids haemostasis haemostatic half
    head healed healing health healthy helicobacter hemorrhoids hepatic hereby hernia hiatal
    hiatus high histological histology history homogeneous hospital hot hour hours hyperaemia
    hyperaemic hyperplastic i iba ibd icv identified ii iii ileal ileitis ileo ileocaecal
    ileocecal ileocolonic ileoscopy ileum image images imaging impacted impression inadequate
    incision incomplete incontinence indeterminate indicated indication indications indigo
    indurated infection infective inferior infiltration inflamed inflammation inflammatory
    inflammed inflated injected injection inner insertion insufflation intact intermittent
    internal intestinal intestine intra intraepithelial intubated intubation invasion invasive
    iron irregular irregularity irritable ischaemic islands isp itt iv jejunum jnet junction
    juvenile lady large larger largest last lateral lavage leaking least left length lesion
    lesions less leukaemia level lift lifted lifting likely limit limited limits line linear lip
    lipoma lipomas list lobulated localised location long longitudinal look looked looking looks
    loop loops loss low lower lumen lumenal luminal lymph lymphocytic lymphoid lymphoma
    macroscopic mainly male malignancy malignant man managed management margin margins marked
    markedly marker marking mass massive mature max mdt measured measures measuring medial
    medical medication medications medicine medium melaena melanosis mesalazine metal metastasis
    methylene mg microscopic mid midazolam middle mild mildly minimal minor minute mitotic mixed
    ml mm moderate moderately monitor month months morning mother mouth moved mr mri mrs mucosa
    mucosal mucous mucus multiple mural narrow narrowed narrowing nbi near neck necrosis
    necrotic needle negative neo neoplasia neoplasm neoplastic net new next nice night nodular
    nodule nodules non normal normally number numerous nurse obscured obstructing obstruction
    obtained obvious occasional occult oedema oedematous oesophageal oesophagitis oesophagus ogd
    old omeprazole one opening opposite orifice oval overlying overnight pain painful pale
    palpable pan pancolitis pandiverticulosis paracetamol part partial partially particularly
    pass passed patch patches patchy patent path pathology patient patients pattern pedicle
    pedunculated per perforation perianal pethidine physician piece piecemeal pieces pink pit
    pits place placed plan plaque plaques plasma please point polyp polypectomies polypectomy
    polypoid polyposis polyps pool poor poorly portal position possible possibly post posterior
    pouch prep preparation prescribed presence previous previously primary prior probably
    problem procedure proctitis proctoscopy prolapse prominent propofol prostate proximal
    pruritus pseudopolyp pseudopolyps pt pulled pulsatile purple putative quadrant quality
    quiescent radiation radiotherapy raised random randomised rare rather reached rebook
    rebooking recent recently recommend recommended rectal recto rectosigmoid rectum recurrence
    recurrent red redness reduced refer referral referred reflux refused region regular
    relatively remainder remaining removal removed repeat report reported resect resected
    resection residual result results retained retrieval retrieved retroflex retroflexed
    retroflexion retroversion review right ring room rose round routine sample samples sano
    satisfactory scale scar scarred scarring scattered scheduled scope score screening second
    secondary section sedation seen segment segmental segments semi sent serrated sessile severe
    severely severity sex shallow shape sharp short shown side sigmoid sigmoidoscopy sign signed
    significant signs similar single site sites size sized skin slight slightly slow small
    smaller smooth snare snared soft soiling solid solitary solution specimen specimens
    sphincter splenic spontaneous spot spots spray squamous stable staff stalk standard staple
    stapled started status steep stenosis stent stercoral stomach stool stools stopped straight
    streak stricture strictures strong subepithelial submucosa submucosal suboptimal subtle
    subtotal successful superficial superior supine surface surgeon surgery surgical surrounding
    surveillance suspected suspicion suspicious sutures swelling symptomatic symptoms syndrome
    tags take taken target tattoo tattooed team technique telangiectasia ten tender term
    terminal test theatre thick thickened thickening thin third three throughout ti tight tiny
    tip tissue tolerated tone top tortuous total touch towards tract transverse traumatised
    treat treated treatment trial tube tubular tubulovillous tumor tumour turn twisted two type
    typed typical ulcer ulcerated ulceration ulcerations ulcerative ulcers unable uncertain
    unclear uncomplicated underlying unit units unlikely unremarkable unsuccessful upper urgent
    use used usual v valve variceal varices vascular vedolizumab vein veins verge verified
    vessel vessels view views villous visible visual visualised volume vomiting wall ward
    warfarin wash washed washing washings watch water week weeks weight well white whole wide
    widespread winding withdrawal woman worse year years yellow yesterday young zone
    """
)


def is_plain_word(word: str) -> bool:
    """Whether a word, whatever its case, is ordinary in a report rather than a name."""
    plain = word.casefold().strip("'’.-,")
    return plain in _PLAIN or plain in FUNCTION_WORDS or plain.removesuffix("s") in _PLAIN
