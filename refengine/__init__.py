"""refengine"""
