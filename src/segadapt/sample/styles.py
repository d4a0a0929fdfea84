"""The two domains as data: what is built there (statistics) and in which colours (palette).

Source: a sunny rendered town, wide streets, low pastel houses, bright paint. Target: an old town seen by a car's
camera: narrow streets, tall brick and plaster, dull paint, autumn leaves. The kinds of things and their shapes are the
same in both.
"""

from dataclasses import dataclass

from segadapt.sample.canvas import Color

Range = tuple[float, float]


@dataclass(frozen=True)
class Palette:
    """Colours by material; one is drawn per object."""

    sky: tuple[tuple[Color, Color], ...]  # (zenith, horizon)
    clouds: Color
    road: tuple[Color, ...]
    markings: Color
    sidewalk: tuple[Color, ...]
    curb: Color
    terrain: tuple[Color, ...]
    facades: tuple[Color, ...]
    windows: tuple[Color, ...]
    doors: tuple[Color, ...]
    roofs: tuple[Color, ...]
    walls: tuple[Color, ...]
    fences: tuple[Color, ...]
    poles: tuple[Color, ...]
    light_boxes: tuple[Color, ...]
    leaves: tuple[Color, ...]
    trunks: tuple[Color, ...]
    clothes: tuple[Color, ...]
    skins: tuple[Color, ...]
    cars: tuple[Color, ...]
    trucks: tuple[Color, ...]
    buses: tuple[Color, ...]
    trams: tuple[Color, ...]
    cycles: tuple[Color, ...]
    glass: Color
    tyres: Color


@dataclass(frozen=True)
class Statistics:
    """How streets are laid out: ranges in metres (camera: shares of the picture), expected numbers, probabilities."""

    focal: Range  # share of the width
    center: Range  # vanishing point, share of the width
    horizon: Range  # share of the height
    camera_height: Range
    road_left: Range  # from the camera to the curb
    road_right: Range
    sidewalk: Range
    verge: float  # probability of a grass strip between sidewalk and plots
    building_height: Range
    building_length: Range
    plots: dict[str, float]  # kind -> weight
    trees: Range
    lamps: Range
    lights: Range
    signs: Range
    persons: Range
    bicycles: Range  # ridden or parked
    motorcycles: Range
    ridden: float  # probability that a cycle has its rider on it
    cars: Range
    truck: float  # probabilities
    bus: float
    tram: float
    bonnet: float  # probability that the own car's bonnet is in the picture


SOURCE_PALETTE = Palette(
    sky=(((70, 135, 220), (170, 210, 240)), ((95, 160, 230), (205, 225, 240)), ((60, 120, 205), (235, 215, 190))),
    clouds=(246, 246, 248),
    road=((82, 84, 90), (90, 90, 94), (76, 78, 86)),
    markings=(238, 234, 220),
    sidewalk=((186, 178, 164), (176, 172, 166), (196, 186, 170)),
    curb=(214, 208, 198),
    terrain=((138, 172, 76), (150, 176, 88), (168, 168, 92)),
    facades=(
        (232, 214, 180),
        (226, 190, 150),
        (240, 232, 214),
        (206, 148, 118),
        (176, 204, 206),
        (238, 206, 120),
        (214, 178, 176),
    ),
    windows=((62, 92, 124), (74, 108, 138), (52, 78, 108)),
    doors=((120, 70, 44), (54, 92, 84), (150, 46, 40)),
    roofs=((178, 84, 60), (122, 92, 82), (96, 104, 116)),
    walls=((204, 184, 150), (190, 176, 160), (212, 200, 184)),
    fences=((70, 84, 78), (228, 226, 220), (120, 92, 64)),
    poles=((124, 130, 134), (104, 110, 112)),
    light_boxes=((34, 38, 36), (232, 180, 40)),
    leaves=((66, 146, 58), (88, 164, 62), (48, 122, 56), (112, 168, 60)),
    trunks=((112, 82, 56), (128, 98, 70)),
    clothes=(
        (214, 60, 54),
        (52, 104, 196),
        (242, 196, 62),
        (240, 240, 238),
        (60, 150, 110),
        (150, 76, 160),
        (44, 52, 76),
    ),
    skins=((232, 188, 156), (198, 146, 110), (140, 96, 70)),
    cars=((206, 40, 40), (38, 86, 184), (240, 240, 240), (246, 196, 44), (60, 62, 68), (54, 148, 120), (222, 110, 40)),
    trucks=((236, 236, 232), (70, 120, 190), (200, 70, 50)),
    buses=((244, 190, 40), (64, 168, 150), (226, 92, 56)),
    trams=((220, 226, 230), (150, 40, 60)),
    cycles=((208, 48, 48), (40, 110, 180), (40, 44, 48), (240, 150, 40)),
    glass=(60, 84, 104),
    tyres=(34, 34, 38),
)

TARGET_PALETTE = Palette(
    sky=(((134, 164, 204), (204, 221, 234)), ((128, 165, 206), (212, 223, 233)), ((142, 167, 203), (233, 224, 212))),
    clouds=(218, 220, 226),
    road=((96, 96, 99), (96, 96, 99), (96, 96, 98)),
    markings=(225, 222, 211),
    sidewalk=((165, 157, 147), (162, 153, 145), (166, 160, 150)),
    curb=(189, 184, 176),
    terrain=((106, 118, 66), (122, 120, 74), (108, 111, 71)),
    facades=(
        (164, 122, 102),
        (181, 160, 136),
        (153, 145, 136),
        (184, 157, 120),
        (126, 111, 104),
        (196, 185, 159),
        (163, 140, 122),
    ),
    windows=((88, 101, 115), (64, 74, 84), (126, 138, 152)),
    doors=((82, 58, 44), (60, 76, 69), (105, 74, 70)),
    roofs=((114, 74, 63), (86, 78, 79), (102, 90, 86)),
    walls=((153, 130, 111), (144, 137, 128), (166, 154, 138)),
    fences=((61, 68, 63), (129, 118, 106), (126, 119, 109)),
    poles=((100, 103, 102), (78, 83, 84), (120, 121, 118)),
    light_boxes=((28, 30, 30), (88, 80, 42)),
    leaves=((72, 100, 50), (94, 107, 52), (54, 83, 48), (120, 111, 52)),
    trunks=((82, 67, 54), (95, 82, 67)),
    clothes=((98, 62, 69), (80, 74, 94), (90, 80, 50), (150, 144, 138), (69, 100, 100), (142, 64, 82), (134, 133, 133)),
    skins=((216, 176, 152), (184, 140, 112), (131, 93, 72)),
    cars=(
        (150, 44, 44),
        (60, 78, 130),
        (220, 220, 220),
        (172, 174, 178),
        (58, 60, 66),
        (70, 112, 102),
        (112, 118, 126),
    ),
    trucks=((202, 202, 198), (80, 104, 136), (155, 108, 80)),
    buses=((193, 80, 40), (163, 174, 110), (128, 113, 112)),
    trams=((205, 196, 155), (128, 48, 50)),
    cycles=((82, 44, 45), (92, 60, 78), (58, 70, 81), (158, 136, 109)),
    glass=(64, 75, 84),
    tyres=(31, 31, 34),
)

SOURCE_STATISTICS = Statistics(
    focal=(0.66, 0.76),
    center=(0.40, 0.60),
    horizon=(0.42, 0.50),
    camera_height=(1.45, 1.75),
    road_left=(4.5, 8.5),
    road_right=(2.8, 4.6),
    sidewalk=(2.0, 3.4),
    verge=0.35,
    building_height=(5.0, 13.0),
    building_length=(7.0, 14.0),
    plots={"building": 0.50, "wall": 0.14, "fence": 0.16, "hedge": 0.08, "lawn": 0.12},
    trees=(2, 5),
    lamps=(2, 4),
    lights=(0, 2),
    signs=(1, 3),
    persons=(1, 4),
    bicycles=(0, 2),
    motorcycles=(0, 2),
    ridden=0.6,
    cars=(2, 5),
    truck=0.42,
    bus=0.42,
    tram=0.28,
    bonnet=0.0,
)

TARGET_STATISTICS = Statistics(
    focal=(0.72, 0.84),
    center=(0.42, 0.58),
    horizon=(0.38, 0.46),
    camera_height=(1.30, 1.55),
    road_left=(3.4, 6.5),
    road_right=(2.5, 3.8),
    sidewalk=(1.6, 3.0),
    verge=0.25,
    building_height=(8.0, 18.0),
    building_length=(6.0, 12.0),
    plots={"building": 0.58, "wall": 0.14, "fence": 0.14, "hedge": 0.07, "lawn": 0.07},
    trees=(2, 6),
    lamps=(2, 5),
    lights=(0, 2),
    signs=(1, 4),
    persons=(2, 6),
    bicycles=(0, 3),
    motorcycles=(0, 2),
    ridden=0.55,
    cars=(3, 6),
    truck=0.42,
    bus=0.42,
    tram=0.28,
    bonnet=0.5,
)
