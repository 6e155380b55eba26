"""The words of the demo shop: departments, categories and products. Holds vocabulary, no structure."""

from __future__ import annotations

CATEGORIES: tuple[tuple[str, str, tuple[str, ...]], ...] = (
    ("Kitchen", "Cookware", ("Frying Pan", "Saucepan", "Stock Pot", "Wok", "Casserole Dish", "Grill Pan")),
    ("Kitchen", "Coffee and Tea", ("Coffee Grinder", "French Press", "Teapot", "Espresso Cup Set", "Milk Frother")),
    ("Kitchen", "Baking", ("Cake Tin", "Rolling Pin", "Muffin Tray", "Whisk", "Baking Mat", "Loaf Pan")),
    ("Kitchen", "Knives", ("Chef Knife", "Paring Knife", "Bread Knife", "Knife Sharpener", "Cutting Board")),
    ("Garden", "Hand Tools", ("Pruning Shears", "Trowel", "Hand Rake", "Spade", "Weeding Fork", "Hedge Clippers")),
    ("Garden", "Planters", ("Flower Pot", "Hanging Basket", "Window Box", "Raised Bed", "Plant Stand")),
    ("Garden", "Watering", ("Watering Can", "Garden Hose", "Sprinkler", "Drip Irrigation Kit", "Rain Barrel")),
    ("Outdoors", "Camping", ("Dome Tent", "Sleeping Bag", "Camping Lantern", "Camp Stove", "Inflatable Mattress")),
    ("Outdoors", "Hiking", ("Trekking Poles", "Daypack", "Hiking Boots", "Compass", "Rain Poncho", "Gaiters")),
    ("Outdoors", "Fishing", ("Fishing Rod", "Spinning Reel", "Tackle Box", "Landing Net", "Lure Set")),
    ("Sports", "Yoga", ("Yoga Mat", "Yoga Block", "Meditation Cushion", "Stretching Strap", "Foam Roller")),
    ("Sports", "Cycling", ("Bike Helmet", "Bicycle Pump", "Cycling Gloves", "Bike Light", "Saddle Bag")),
    ("Sports", "Swimming", ("Swim Goggles", "Swimming Cap", "Kickboard", "Swim Fins", "Quick-Dry Towel")),
    ("Sports", "Strength", ("Dumbbell Pair", "Kettlebell", "Resistance Bands", "Pull-Up Bar", "Weight Bench")),
    ("Beauty", "Skin Care", ("Face Cream", "Cleansing Foam", "Vitamin C Serum", "Eye Gel", "Clay Mask")),
    ("Beauty", "Hair Care", ("Shampoo", "Hair Conditioner", "Hair Dryer", "Paddle Brush", "Styling Wax")),
    ("Beauty", "Makeup", ("Lipstick", "Mascara", "Foundation", "Eyeshadow Palette", "Makeup Brush Set")),
    ("Beauty", "Fragrance", ("Eau de Parfum", "Body Mist", "Cologne", "Perfume Oil", "Scented Lotion")),
    ("Office", "Writing", ("Fountain Pen", "Notebook", "Mechanical Pencil", "Highlighter Set", "Ink Bottle")),
    ("Office", "Desk", ("Desk Lamp", "Desk Organizer", "Monitor Stand", "Wrist Rest", "Filing Tray")),
    ("Toys", "Building Sets", ("Building Blocks", "Model Train Set", "Marble Run", "Construction Kit", "Robot Kit")),
    ("Toys", "Board Games", ("Strategy Board Game", "Chess Set", "Card Game", "Dominoes", "Trivia Game")),
    ("Toys", "Puzzles", ("Jigsaw Puzzle", "Wooden Brain Teaser", "Puzzle Cube", "Floor Puzzle", "Crossword Book")),
    ("Baby", "Nursery", ("Crib Sheet", "Baby Monitor", "Night Light", "Changing Mat", "Swaddle Blanket")),
    ("Pets", "Dogs", ("Dog Leash", "Dog Bed", "Chew Toy", "Dog Harness", "Puppy Training Pads")),
    ("Pets", "Cats", ("Cat Tree", "Litter Box", "Cat Tunnel", "Feather Wand", "Scratching Post")),
    ("Pets", "Aquarium", ("Fish Tank", "Aquarium Filter", "Water Heater", "Aquarium Gravel", "Fish Food")),
    ("Home", "Bedding", ("Duvet Cover", "Pillow", "Fitted Sheet", "Wool Blanket", "Mattress Topper")),
    ("Home", "Candles", ("Scented Candle", "Candle Holder", "Reed Diffuser", "Tea Lights", "Wax Melts")),
    ("Home", "Storage", ("Storage Basket", "Shoe Rack", "Wall Shelf", "Vacuum Bags", "Drawer Divider")),
    ("Electronics", "Headphones", ("Wireless Earbuds", "Over-Ear Headphones", "Gaming Headset", "Neckband Earphones")),
    ("Electronics", "Photography", ("Camera Tripod", "Camera Bag", "Lens Filter", "Memory Card", "Ring Light")),
    ("Electronics", "Charging", ("Power Bank", "USB-C Cable", "Wall Charger", "Wireless Charging Pad", "Car Charger")),
    ("Music", "Guitar", ("Acoustic Guitar", "Guitar Strings", "Guitar Capo", "Guitar Strap", "Clip-On Tuner")),
    ("Music", "Piano", ("Digital Piano", "Piano Bench", "Sustain Pedal", "Sheet Music Stand", "Metronome")),
    ("Crafts", "Knitting", ("Merino Yarn", "Knitting Needles", "Crochet Hook Set", "Stitch Markers", "Yarn Bowl")),
    ("Crafts", "Painting", ("Watercolor Set", "Acrylic Paints", "Paint Brush Set", "Stretched Canvas", "Easel")),
    ("Crafts", "Sewing", ("Sewing Machine", "Fabric Scissors", "Thread Set", "Pin Cushion", "Quilting Fabric")),
    ("Workshop", "Power Tools", ("Cordless Drill", "Jigsaw", "Orbital Sander", "Circular Saw", "Impact Driver")),
    ("Workshop", "Hardware", ("Wood Screws", "Wall Anchors", "Door Hinge", "Cabinet Knobs", "Padlock")),
    ("Travel", "Luggage", ("Carry-On Suitcase", "Duffel Bag", "Packing Cubes", "Luggage Scale", "Travel Pillow")),
    ("Fashion", "Watches", ("Wrist Watch", "Watch Strap", "Chronograph Watch", "Watch Box", "Pocket Watch")),
    ("Fashion", "Bags", ("Tote Bag", "Crossbody Bag", "Leather Wallet", "Clutch", "Messenger Bag")),
    ("Fashion", "Shoes", ("Running Shoes", "Leather Loafers", "Sandals", "Ankle Boots", "Canvas Sneakers")),
    ("Grocery", "Spices", ("Smoked Paprika", "Curry Powder", "Sea Salt", "Black Peppercorns", "Cinnamon Sticks")),
    ("Grocery", "Snacks", ("Trail Mix", "Roasted Almonds", "Granola Bars", "Dried Mango", "Rice Crackers")),
    ("Car", "Car Care", ("Car Wax", "Wheel Cleaner", "Microfiber Cloths", "Tire Inflator", "Dashboard Polish")),
    ("Health", "First Aid", ("First Aid Kit", "Bandages", "Thermometer", "Ice Pack", "Antiseptic Spray")),
)
"""Department, category and its products: what a title lets one see."""

BRANDS = (
    "Norvik", "Alder & Finch", "Brightwell", "Casa Luma", "Dunmore", "Everly", "Fjordline", "Greystone", "Halden",
    "Ironbark", "Juniper Lane", "Kestrel", "Lumen", "Marlowe", "Northbay", "Oakhurst", "Pinemoor", "Quillon",
    "Redfern", "Solano", "Tidewater", "Umbra Works", "Vantage", "Willowby",
)  # fmt: skip
ADJECTIVES = (
    "Classic", "Compact", "Deluxe", "Essential", "Everyday", "Handmade", "Lightweight", "Modern", "Original",
    "Premium", "Professional", "Reusable", "Sturdy", "Traditional", "Vintage", "Eco-Friendly", "Portable", "Slim",
)  # fmt: skip
FINISHES = (
    "Olive", "Charcoal", "Ivory", "Navy", "Terracotta", "Sage", "Crimson", "Slate", "Sand", "Teal", "Amber", "Plum",
    "Small", "Large", "Medium", "2-Pack", "3-Pack", "Travel Size",
)  # fmt: skip
"""Brands, adjectives and finishes vary the titles and say nothing about who buys an item."""
