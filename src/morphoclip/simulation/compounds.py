"""Sixteen genes with six known drugs each. Structures were written from memory; their simulated effects are invented."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Drug:
    """A drug as in an annotation table; the first of `targets` is the gene it is listed under."""

    name: str
    targets: tuple[str, ...]
    smiles: str


GENES = (
    "TUBB", "AURKA", "AURKB", "PLK1", "HDAC1", "HSP90AA1", "EGFR", "MAP2K1",
    "MTOR", "PIK3CA", "BRD4", "PSMB5", "CDK2", "ROCK1", "PTGS2", "ADRB2",
)  # fmt: skip

_TABLE = r"""
TUBB        colchicine      COc1cc2CC[C@H](NC(C)=O)C3=CC(=O)C(OC)=CC=C3c2c(OC)c1OC
TUBB        nocodazole      COC(=O)Nc1nc2cc(ccc2[nH]1)C(=O)c1cccs1
TUBB        combretastatin-A4 COc1ccc(\C=C/c2cc(OC)c(OC)c(OC)c2)cc1O
TUBB        podophyllotoxin COc1cc(cc(OC)c1OC)[C@@H]1[C@@H]2[C@@H](COC2=O)[C@H](O)c2cc3OCOc3cc12
TUBB        albendazole     CCCSc1ccc2[nH]c(NC(=O)OC)nc2c1
TUBB        mebendazole     COC(=O)Nc1nc2cc(ccc2[nH]1)C(=O)c1ccccc1
AURKA       alisertib       COc1cc(Nc2ncc3CN=C(c4cc(Cl)ccc4-c3n2)c2c(F)cccc2OC)ccc1C(O)=O
AURKA       MLN-8054        OC(=O)c1ccc(Nc2ncc3CN=C(c4cc(Cl)ccc4-c3n2)c2c(F)cccc2F)cc1
AURKA|AURKB tozasertib      CN1CCN(CC1)c1cc(Nc2cc(C)[nH]n2)nc(Sc2ccc(NC(=O)C3CC3)cc2)n1
AURKA|AURKB danusertib      CO[C@@H](C(=O)N1Cc2[nH]nc(NC(=O)c3ccc(cc3)N3CCN(C)CC3)c2C1)c1ccccc1
AURKA       ENMD-2076       CN1CCN(CC1)c1cc(Nc2cc(C)[nH]n2)nc(\C=C\c2ccccc2)n1
AURKA       MK-8745         O=C(c1cccc(Cl)c1F)N1CCN(Cc2cccc(Nc3nccs3)n2)CC1
AURKB       barasertib-HQPA CCN(CCO)CCCOc1ccc2c(Nc3cc(CC(=O)Nc4cccc(F)c4)[nH]n3)ncnc2c1
AURKB       ZM-447439       COc1cc2c(Nc3ccc(NC(=O)c4ccccc4)cc3)ncnc2cc1OCCCN1CCOCC1
AURKB       hesperadin      CCS(=O)(=O)Nc1ccc2NC(=O)\C(=C(/Nc3ccc(CN4CCCCC4)cc3)c3ccccc3)c2c1
AURKB       GSK-1070916     CCn1cc(c(n1)-c1ccc(NC(=O)N(C)C)cc1)-c1ccnc2[nH]c(cc12)-c1cccc(CN(C)C)c1
AURKB|AURKA AMG-900         Cc1csc(c1)-c1nnc(Nc2ccc(Oc3ncccc3-c3ccnc(N)n3)cc2)c2ccccc12
AURKB|AURKA CYC-116         Cc1nc(N)sc1-c1ccnc(Nc2ccc(cc2)N2CCOCC2)n1
PLK1|BRD4   BI-2536         CC[C@@H]1N(C2CCCC2)c2nc(Nc3ccc(cc3OC)C(=O)NC3CCN(C)CC3)ncc2N(C)C1=O
PLK1|BRD4   volasertib      CC[C@@H]1N(C(C)C)c2nc(Nc3ccc(cc3OC)C(=O)N[C@H]3CC[C@@H](CC3)N3CCN(CC4CC4)CC3)ncc2N(C)C1=O
PLK1        GSK-461364      C[C@@H](Oc1cc(sc1C(N)=O)-n1cnc2ccc(CN3CCN(C)CC3)cc12)c1ccccc1C(F)(F)F
PLK1        rigosertib      COc1cc(OC)c(\C=C\S(=O)(=O)Cc2ccc(OC)c(NCC(O)=O)c2)c(OC)c1
PLK1        HMN-214         COc1ccc(cc1)S(=O)(=O)N(C(C)=O)c1ccccc1\C=C\c1cc[n+]([O-])cc1
PLK1        onvansertib     CN1CCN(CC1)c1ccc(OC(F)(F)F)c(Nc2ncc3CCc4c(nn(CCO)c4-c3n2)C(N)=O)c1
HDAC1       vorinostat      ONC(=O)CCCCCCC(=O)Nc1ccccc1
HDAC1       panobinostat    Cc1[nH]c2ccccc2c1CCNCc1ccc(\C=C\C(=O)NO)cc1
HDAC1       belinostat      ONC(=O)\C=C\c1cccc(c1)S(=O)(=O)Nc1ccccc1
HDAC1       entinostat      Nc1ccccc1NC(=O)c1ccc(CNC(=O)OCc2cccnc2)cc1
HDAC1       mocetinostat    Nc1ccccc1NC(=O)c1ccc(CNc2nccc(n2)-c2cccnc2)cc1
HDAC1       trichostatin-A  C[C@H](\C=C(/C)\C=C\C(=O)NO)C(=O)c1ccc(cc1)N(C)C
HSP90AA1    tanespimycin    CO[C@H]1C[C@H](C)CC2=C(NCC=C)C(=O)C=C(NC(=O)\C(C)=C\C=C/[C@H](OC)[C@@H](OC(N)=O)\C(C)=C\[C@H](C)[C@H]1O)C2=O
HSP90AA1    luminespib      CCNC(=O)c1noc(c1-c1ccc(CN2CCOCC2)cc1)-c1cc(C(C)C)c(O)cc1O
HSP90AA1    ganetespib      CC(C)c1cc(c(O)cc1O)-c1n[nH]c(=O)n1-c1ccc2n(C)ccc2c1
HSP90AA1    BIIB-021        COc1c(C)cnc(Cn2cnc3c(Cl)nc(N)nc23)c1C
HSP90AA1    PU-H71          CC(C)NCCCn1c(Sc2cc3OCOc3cc2I)nc2c(N)ncnc12
HSP90AA1    SNX-2112        CC1(C)CC(=O)c2c(C1)n(nc2C(F)(F)F)-c1ccc(C(N)=O)c(N[C@H]2CC[C@H](O)CC2)c1
EGFR        gefitinib       COc1cc2ncnc(Nc3ccc(F)c(Cl)c3)c2cc1OCCCN1CCOCC1
EGFR        erlotinib       COCCOc1cc2ncnc(Nc3cccc(c3)C#C)c2cc1OCCOC
EGFR        lapatinib       CS(=O)(=O)CCNCc1ccc(o1)-c1ccc2ncnc(Nc3ccc(OCc4cccc(F)c4)c(Cl)c3)c2c1
EGFR        afatinib        CN(C)C\C=C\C(=O)Nc1cc2c(Nc3ccc(F)c(Cl)c3)ncnc2cc1O[C@H]1CCOC1
EGFR        osimertinib     COc1cc(N(C)CCN(C)C)c(NC(=O)C=C)cc1Nc1nccc(n1)-c1cn(C)c2ccccc12
EGFR        tyrphostin-AG-1478 COc1cc2ncnc(Nc3cccc(Cl)c3)c2cc1OC
MAP2K1      trametinib      CC(=O)Nc1cccc(c1)-n1c(=O)n(C2CC2)c(=O)c2c(Nc3ccc(I)cc3F)n(C)c(=O)c(C)c12
MAP2K1      selumetinib     Cn1cnc2c(F)c(Nc3ccc(Br)cc3Cl)c(cc12)C(=O)NOCCO
MAP2K1      mirdametinib    OC[C@@H](O)CONC(=O)c1ccc(F)c(F)c1Nc1ccc(I)cc1F
MAP2K1      cobimetinib     OC1(CN(C1)C(=O)c1ccc(F)c(F)c1Nc1ccc(I)cc1F)[C@@H]1CCCCN1
MAP2K1      PD-98059        COc1cccc(c1N)-c1cc(=O)c2ccccc2o1
MAP2K1      U-0126          N\C(Sc1ccccc1N)=C(/C#N)\C(\C#N)=C(/N)Sc1ccccc1N
MTOR        sirolimus       CO[C@@H]1C[C@H](CC[C@H]1O)C[C@@H](C)[C@@H]1CC(=O)[C@H](C)\C=C(C)\[C@@H](O)[C@@H](OC)C(=O)[C@H](C)C[C@H](C)\C=C\C=C\C=C(C)\[C@H](C[C@@H]2CC[C@@H](C)[C@@](O)(O2)C(=O)C(=O)N2CCCC[C@H]2C(=O)O1)OC
MTOR        torin-1         CCC(=O)N1CCN(CC1)c1ccc(cc1C(F)(F)F)-n1c2c(ccc1=O)cnc1ccc(cc21)-c1cnc2ccccc2c1
MTOR        torin-2         Nc1ccc(cn1)-c1ccc2ncc3ccc(=O)n(c3c2c1)-c1cccc(c1)C(F)(F)F
MTOR        AZD-8055        COc1ccc(cc1CO)-c1ccc2c(nc(nc2n1)N1CCOC[C@@H]1C)N1CCOC[C@@H]1C
MTOR        sapanisertib    CC(C)n1nc(-c2ccc3oc(N)nc3c2)c2c(N)ncnc12
MTOR        PP-242          CC(C)n1nc(-c2cc3cc(O)ccc3[nH]2)c2c(N)ncnc12
PIK3CA      alpelisib       Cc1nc(NC(=O)N2CCC[C@H]2C(N)=O)sc1-c1ccnc(c1)C(C)(C)C(F)(F)F
PIK3CA      pictilisib      CS(=O)(=O)N1CCN(Cc2cc3nc(nc(N4CCOCC4)c3s2)-c2cccc3[nH]ncc23)CC1
PIK3CA|TUBB buparlisib      Nc1cc(c(cn1)-c1cc(nc(n1)N1CCOCC1)N1CCOCC1)C(F)(F)F
PIK3CA      ZSTK-474        FC(F)c1nc2ccccc2n1-c1nc(nc(n1)N1CCOCC1)N1CCOCC1
PIK3CA|MTOR PI-103          Oc1cccc(c1)-c1nc(N2CCOCC2)c2oc3ncccc3c2n1
PIK3CA      LY-294002       O=c1cc(oc2c(cccc12)-c1ccccc1)N1CCOCC1
BRD4        JQ1             Cc1sc2-n3c(C)nnc3[C@H](CC(=O)OC(C)(C)C)N=C(c3ccc(Cl)cc3)c2c1C
BRD4        molibresib      CCNC(=O)C[C@@H]1N=C(c2ccc(Cl)cc2)c2cc(OC)ccc2-n2c(C)nnc12
BRD4        birabresib      Cc1sc2-n3c(C)nnc3[C@H](CC(=O)Nc3ccc(O)cc3)N=C(c3ccc(Cl)cc3)c2c1C
BRD4        PFI-1           COc1ccccc1S(=O)(=O)Nc1ccc2NC(=O)N(C)Cc2c1
BRD4        CPI-203         Cc1sc2-n3c(C)nnc3[C@H](CC(N)=O)N=C(c3ccc(Cl)cc3)c2c1C
BRD4        I-BET-151       COc1cc2c(cc1-c1c(C)noc1C)ncc1[nH]c(=O)n([C@H](C)c3ccccn3)c21
PSMB5       bortezomib      CC(C)C[C@H](NC(=O)[C@H](Cc1ccccc1)NC(=O)c1cnccn1)B(O)O
PSMB5       ixazomib        CC(C)C[C@H](NC(=O)CNC(=O)c1cc(Cl)ccc1Cl)B(O)O
PSMB5       MG-132          O=C(OCc1ccccc1)N[C@@H](CC(C)C)C(=O)N[C@@H](CC(C)C)C(=O)N[C@@H](CC(C)C)C=O
PSMB5       carfilzomib     CC(C)C[C@H](NC(=O)[C@H](CCc1ccccc1)NC(=O)CN1CCOCC1)C(=O)N[C@@H](Cc1ccccc1)C(=O)N[C@@H](CC(C)C)C(=O)[C@@]1(C)CO1
PSMB5       oprozomib       COC[C@H](NC(=O)c1cnc(C)s1)C(=O)N[C@@H](COC)C(=O)N[C@@H](Cc1ccccc1)C(=O)[C@@]1(C)CO1
PSMB5       delanzomib      CC(C)C[C@H](NC(=O)[C@@H](NC(=O)c1cccc(n1)-c1ccccc1)[C@@H](C)O)B(O)O
CDK2        seliciclib      CC[C@H](CO)Nc1nc(NCc2ccccc2)c2ncn(C(C)C)c2n1
CDK2        dinaciclib      CCc1cnn2c(NCc3ccc[n+]([O-])c3)cc(nc12)N1CCCC[C@H]1CCO
CDK2        AT-7519         Clc1cccc(Cl)c1C(=O)Nc1c[nH]nc1C(=O)NC1CCNCC1
CDK2        SNS-032         CC(C)(C)c1cnc(CSc2cnc(NC(=O)C3CCNCC3)s2)o1
CDK2        purvalanol-A    CC(C)[C@H](CO)Nc1nc(Nc2cccc(Cl)c2)c2ncn(C(C)C)c2n1
CDK2        alvocidib       CN1CC[C@@H]([C@H](O)C1)c1c(O)cc(O)c2c1oc(cc2=O)-c1ccccc1Cl
ROCK1       fasudil         O=S(=O)(N1CCCNCC1)c1cccc2cnccc12
ROCK1       Y-27632         C[C@@H](N)[C@H]1CC[C@@H](CC1)C(=O)Nc1ccncc1
ROCK1       ripasudil       C[C@H]1CNCCCN1S(=O)(=O)c1cccc2cncc(F)c12
ROCK1       H-1152          C[C@H]1CNCCCN1S(=O)(=O)c1cccc2cncc(C)c12
ROCK1       GSK-429286A     CC1=C(C(CC(=O)N1)c1ccc(cc1)C(F)(F)F)C(=O)Nc1cc2cn[nH]c2cc1F
ROCK1       netarsudil      Cc1ccc(C(=O)OCc2ccc(cc2)[C@@H](CN)C(=O)Nc2ccc3cnccc3c2)c(C)c1
PTGS2       celecoxib       Cc1ccc(cc1)-c1cc(nn1-c1ccc(cc1)S(N)(=O)=O)C(F)(F)F
PTGS2       rofecoxib       CS(=O)(=O)c1ccc(cc1)C1=C(C(=O)OC1)c1ccccc1
PTGS2       ibuprofen       CC(C)Cc1ccc(cc1)C(C)C(O)=O
PTGS2       naproxen        COc1ccc2cc(ccc2c1)[C@H](C)C(O)=O
PTGS2       indomethacin    COc1ccc2n(C(=O)c3ccc(Cl)cc3)c(C)c(CC(O)=O)c2c1
PTGS2       diclofenac      OC(=O)Cc1ccccc1Nc1c(Cl)cccc1Cl
ADRB2       propranolol     CC(C)NCC(O)COc1cccc2ccccc12
ADRB2       salbutamol      CC(C)(C)NCC(O)c1ccc(O)c(CO)c1
ADRB2       terbutaline     CC(C)(C)NCC(O)c1cc(O)cc(O)c1
ADRB2       timolol         CC(C)(C)NC[C@H](O)COc1nsnc1N1CCOCC1
ADRB2       formoterol      COc1ccc(C[C@@H](C)NC[C@H](O)c2ccc(O)c(NC=O)c2)cc1
ADRB2       nadolol         CC(C)(C)NCC(O)COc1cccc2C[C@@H](O)[C@@H](O)Cc12
"""

DRUGS: tuple[Drug, ...] = tuple(
    Drug(name, tuple(targets.split("|")), smiles)
    for targets, name, smiles in (line.split() for line in _TABLE.strip().splitlines())
)


def drugs_of(gene: str) -> list[Drug]:
    """The drugs listed under `gene`, in a fixed order."""
    return [drug for drug in DRUGS if drug.targets[0] == gene]
