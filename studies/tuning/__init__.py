"""Does `tune` choose what `bench` finds fastest?"""
