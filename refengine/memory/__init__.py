"""What do contexts keep: cells of caches, recurrent states?"""
