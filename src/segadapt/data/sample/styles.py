"""The two domains as data: what is built there (statistics) and in which colours (palette).

Source: a sunny rendered town, wide streets, low pastel houses, bright paint. Target: an old town seen by a car's
camera: narrow streets, tall brick and plaster, dull paint, autumn leaves. The kinds of things and their shapes are the
same in both.
"""

from dataclasses import dataclass

from segadapt.data.sample.canvas import Color

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
    sky=(((176, 184, 194), (226, 228, 230)), ((150, 168, 190), (216, 222, 228)), ((196, 198, 202), (232, 230, 226))),
    clouds=(208, 212, 218),
    road=((116, 114, 112), (104, 104, 106), (126, 122, 116)),
    markings=(206, 204, 198),
    sidewalk=((134, 126, 122), (140, 124, 114), (122, 120, 120)),
    curb=(152, 148, 142),
    terrain=((96, 100, 62), (112, 102, 70), (88, 92, 64)),
    facades=(
        (142, 92, 76),
        (166, 150, 132),
        (124, 116, 110),
        (176, 160, 120),
        (110, 80, 70),
        (182, 178, 172),
        (146, 128, 104),
    ),
    windows=((96, 104, 112), (60, 62, 66), (150, 158, 166)),
    doors=((70, 54, 44), (62, 70, 64), (90, 84, 80)),
    roofs=((92, 70, 64), (74, 74, 78), (104, 86, 76)),
    walls=((136, 112, 98), (128, 124, 118), (150, 138, 122)),
    fences=((58, 62, 58), (96, 82, 68), (128, 128, 124)),
    poles=((92, 94, 92), (70, 74, 74), (118, 118, 112)),
    light_boxes=((26, 28, 28), (40, 46, 42)),
    leaves=((74, 84, 48), (96, 88, 48), (56, 70, 46), (122, 92, 50)),
    trunks=((72, 62, 54), (84, 76, 66)),
    clothes=((60, 62, 74), (90, 64, 60), (40, 42, 46), (120, 112, 104), (72, 84, 96), (140, 60, 56), (164, 160, 152)),
    skins=((210, 172, 150), (180, 138, 112), (128, 92, 72)),
    cars=((44, 46, 50), (156, 160, 164), (206, 208, 208), (96, 100, 106), (58, 70, 98), (120, 44, 42), (30, 32, 36)),
    trucks=((190, 190, 186), (84, 98, 118), (140, 120, 90)),
    buses=((176, 44, 40), (196, 176, 96), (96, 120, 130)),
    trams=((200, 186, 130), (120, 50, 46)),
    cycles=((40, 42, 44), (110, 44, 44), (64, 78, 92), (130, 132, 132)),
    glass=(66, 72, 78),
    tyres=(30, 30, 32),
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
